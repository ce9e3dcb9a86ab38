"""The plan as a site reads it: every field, every bound, nothing unknown."""

from collections.abc import Mapping
from copy import deepcopy

import pytest

from fedsecure.encryption import MAX_SITES
from fedsecure.errors import ConfigurationError, OverflowRisk
from fedsecure.privacy.counts import CountsPlan
from fedsecure.release import plan_digest
from fedsecure.runplan import read_plan
from fedsecure.trainer import JSON
from tests.fakes.federation import Federation


@pytest.fixture
def document() -> dict[str, JSON]:
    return deepcopy(dict(Federation().plan))


@pytest.fixture
def plain() -> dict[str, JSON]:
    return deepcopy(dict(Federation(private=False).plan))


def test_plan_is_named_by_the_digest_of_its_document(document: dict[str, JSON]) -> None:
    assert read_plan(document).digest == plan_digest(document)


def test_training_code_sees_four_sections(document: dict[str, JSON]) -> None:
    plan = read_plan(document)
    assert set(plan.settings) == {"model", "train", "privacy", "seed"}


def test_mode_none_has_no_privacy_plan(plain: dict[str, JSON]) -> None:
    assert read_plan(plain).privacy is None


def test_unknown_field_is_refused(document: dict[str, JSON]) -> None:
    with pytest.raises(ConfigurationError, match="unknown fields \\['colour'\\]"):
        read_plan({**document, "colour": 1})


@pytest.mark.parametrize("name", sorted(Federation().plan))
def test_missing_field_is_refused(document: dict[str, JSON], name: str) -> None:
    del document[name]
    with pytest.raises(ConfigurationError, match=name):
        read_plan(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 2),
        ("rounds", 0),
        ("rounds", -1),
        ("rounds", True),
        ("rounds", 1.5),
        ("rounds", "3"),
        ("run", "Run 1"),
        ("run", "../x"),
        ("run", ""),
        ("project", "a" * 64),
        ("dataset", None),
        ("federation", ""),
        ("sites", []),
        ("sites", "site-1"),
        ("sites", ["site-1", "site-1"]),
        ("custodians", []),
        ("custodians", ["site-9"]),
        ("min_contributors", 0),
        ("min_contributors", 4),
        ("seed", -1),
        ("seed", 2**53),
        ("metrics", "all"),
        ("max_rows", 10),
        ("max_rows", -1),
        ("privacy", None),
        ("encryption", []),
    ],
)
def test_value_out_of_bounds_is_refused(
    document: dict[str, JSON], name: str, value: JSON
) -> None:
    with pytest.raises(ConfigurationError):
        read_plan({**document, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scheme", 1),
        ("profile", "21"),
        ("value_range", 0.0),
        ("value_range", -1.0),
        ("value_range", "1"),
        ("value_range", True),
        ("max_contributors", 2),
        ("max_contributors", MAX_SITES + 1),
        ("extra", 1),
    ],
)
def test_encryption_out_of_bounds_is_refused(
    document: dict[str, JSON], name: str, value: JSON
) -> None:
    section = document["encryption"]
    assert isinstance(section, dict)
    section[name] = value
    with pytest.raises(ConfigurationError):
        read_plan(document)


def test_sum_that_would_not_fit_its_field_is_refused(plain: dict[str, JSON]) -> None:
    section = plain["encryption"]
    assert isinstance(section, dict)
    section["profile"], section["max_contributors"] = "8", 93
    assert read_plan(plain).fixed.bits == 5
    section["max_contributors"] = MAX_SITES + 40
    with pytest.raises((ConfigurationError, OverflowRisk)):
        read_plan(plain)


def test_more_than_93_sites_are_refused(document: dict[str, JSON]) -> None:
    names: list[JSON] = [f"site-{i}" for i in range(MAX_SITES + 1)]
    with pytest.raises(ConfigurationError, match="94 sites, must be 1 to 93"):
        read_plan({**document, "sites": names, "custodians": names[:1]})


def test_weights_with_privacy_on_are_refused(document: dict[str, JSON]) -> None:
    with pytest.raises(ConfigurationError, match="max_rows=10, must be 0"):
        read_plan({**document, "max_rows": 10})


def test_weights_without_privacy_are_read(plain: dict[str, JSON]) -> None:
    assert read_plan(plain).max_rows == 100


def test_plan_after_a_json_round_trip_reads_the_same(document: dict[str, JSON]) -> None:
    """RFC 8785 writes whole floats as integers and back; counts stay counts."""
    floats: Mapping[str, JSON] = {**document, "rounds": float(2)}
    assert read_plan(floats).rounds == 2


def test_ckks_is_refused_together_with_privacy(document: dict[str, JSON]) -> None:
    encryption = document["encryption"]
    assert isinstance(encryption, dict)
    encryption["scheme"] = "ckks"
    with pytest.raises(ConfigurationError, match="no epsilon is claimed with it"):
        read_plan(document)


def test_ckks_is_read_where_no_epsilon_is_claimed(plain: dict[str, JSON]) -> None:
    encryption = plain["encryption"]
    assert isinstance(encryption, dict)
    encryption["scheme"] = "ckks"
    assert read_plan(plain).scheme == "ckks"


COUNTS: JSON = {"noise_multiplier": 8.0, "each_round": True}


def test_counts_are_a_section_of_metrics_dp(document: dict[str, JSON]) -> None:
    plan = read_plan({**document, "metrics": "dp", "counts": COUNTS})
    assert plan.counts == CountsPlan(8.0, each_round=True)
    assert read_plan(document).counts is None


def test_metrics_dp_without_its_section_is_refused(document: dict[str, JSON]) -> None:
    with pytest.raises(ConfigurationError, match="plan section counts=None, needs"):
        read_plan({**document, "metrics": "dp"})


@pytest.mark.parametrize("metrics", ["none", "plain"])
def test_a_section_on_counts_that_does_nothing_is_refused(
    document: dict[str, JSON], metrics: str
) -> None:
    with pytest.raises(ConfigurationError, match="does nothing with metrics"):
        read_plan({**document, "metrics": metrics, "counts": COUNTS})


def test_metrics_dp_in_mode_none_are_refused(plain: dict[str, JSON]) -> None:
    with pytest.raises(ConfigurationError, match="no budget pays for counts"):
        read_plan({**plain, "metrics": "dp", "counts": COUNTS})
