"""The plan's section on encryption: every bound, and what excludes what."""

from collections.abc import Mapping

import pytest

from fedsecure.encryption import EncryptionPlan, read_encryption
from fedsecure.errors import ConfigurationError, OverflowRisk
from fedsecure.sections import EncryptionConfig
from fedsecure.update import JSON


def read(changes: Mapping[str, JSON], *, private: bool = False) -> EncryptionPlan:
    section = EncryptionConfig().document(5, 5, private=private)
    return read_encryption({**section, **changes}, 5, 5, private=private)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("sites", [1, 2, 3, 5, 16])
def test_the_defaults_are_a_plan_for_any_number_of_sites(
    sites: int, *, private: bool
) -> None:
    section = EncryptionConfig().document(sites, sites, private=private)
    plan = read_encryption(section, sites, sites, private=private)
    assert plan.masked == (sites >= 3)


@pytest.mark.parametrize(
    ("sites", "least", "threshold"),
    [(3, 3, 3), (4, 4, 3), (5, 5, 4), (10, 10, 7), (16, 16, 11), (16, 8, 8), (3, 2, 2)],
)
def test_two_thirds_and_one_open_the_masks_by_default(
    sites: int, least: int, threshold: int
) -> None:
    section = EncryptionConfig().document(sites, least, private=False)
    assert section["masking_threshold"] == threshold


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scheme", "rsa"),
        ("profile", "21"),
        ("value_range", 0.0),
        ("value_range", float("inf")),
        ("value_range", True),
        ("range_from", "site"),
        ("range_multiple", -1.0),
        ("range_multiple", 0.99),
        ("rounding", "up"),
        ("error_feedback", "yes"),
        ("max_contributors", 4),
        ("max_contributors", 94),
        ("downlink", "both"),
        ("link_mbps", 0),
        ("masking", "double"),
        ("masking_threshold", 1),
        ("masking_threshold", 6),
        ("masking_threshold", 2.5),
        ("encrypt_layers", "fc.*"),
        ("encrypt_layers", ["("]),
        ("encrypt_layers", ["a"] * 65),
        ("encrypt_layers", ["a" * 129]),
        ("encrypt_layers", ["(a+)+"]),
        ("encrypt_layers", [7]),
        ("extra", 1),
    ],
)
def test_a_value_out_of_bounds_is_named(name: str, value: JSON) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read({name: value})


def test_a_missing_field_is_named() -> None:
    section = EncryptionConfig().document(5, 5, private=False)
    del section["downlink"]
    with pytest.raises(ConfigurationError, match="missing fields \\['downlink'\\]"):
        read_encryption(section, 5, 5, private=False)


def test_a_threshold_without_masks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="does nothing without masking"):
        read({"masking": "none", "masking_threshold": 3})


def test_masks_between_two_sites_are_refused() -> None:
    section = EncryptionConfig().document(2, 2, private=False)
    section |= {"masking": "pairwise", "masking_threshold": 2}
    with pytest.raises(ConfigurationError, match="at least 3 are needed"):
        read_encryption(section, 2, 2, private=False)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scheme": "ckks"}, "not IND-CPA-D secure"),
        ({"profile": "12"}, "fields of 16 bits"),
        ({"rounding": "stochastic"}, "rounding is nearest"),
        ({"error_feedback": True}, "nothing is carried"),
        ({"encrypt_layers": ["fc"]}, "all are encrypted"),
    ],
)
def test_what_an_epsilon_excludes_is_refused(
    changes: dict[str, JSON], reason: str
) -> None:
    read(changes)
    with pytest.raises(ConfigurationError, match=reason):
        read(changes, private=True)


def test_more_sites_than_the_field_has_room_for_are_refused() -> None:
    assert read({"profile": "8", "max_contributors": 93}).fixed.bits == 5
    with pytest.raises((ConfigurationError, OverflowRisk)):
        read({"profile": "8", "max_contributors": 133})


def test_patterns_are_kept_as_they_were_written() -> None:
    assert read({"encrypt_layers": ["fc.*", "out"]}).encrypt_layers == ("fc.*", "out")


def test_leaving_layers_open_of_what_is_not_encrypted_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="encrypts no tensor"):
        read({"scheme": "insecure_plain", "encrypt_layers": ["fc.*"]})
