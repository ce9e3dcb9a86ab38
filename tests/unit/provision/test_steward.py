from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsecure.access.policy import SitePolicy, read_policy
from fedsecure.access.privacyrules import MODES, NEEDED, PrivacyRules, read_rules
from fedsecure.errors import KitError, PolicyRefused
from fedsecure.keys import VerifyKey
from fedsecure.provision.steward import (
    DEMO_RULES,
    make_steward,
    sign_policy,
    write_policy,
)

NOW = datetime(2028, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    make_steward(tmp_path)
    write_policy(tmp_path, [DEMO_RULES], "site-01", NOW)
    return tmp_path


def _read(kit: Path) -> SitePolicy:
    names = ("policy.yaml", "policy.yaml.sig", "steward.pub")
    text, signature, public = ((kit / name).read_bytes() for name in names)
    return read_policy(text, signature, VerifyKey(public), "site-01")


def test_a_written_policy_is_one_that_a_site_accepts(kit: Path) -> None:
    assert set(_read(kit).projects) == {"demo"}


def test_a_policy_of_a_leap_day_ends_within_a_year(kit: Path) -> None:
    assert _read(kit).valid_until == "2029-02-01T12:00:00Z"


def test_a_demonstration_never_allows_what_does_not_encrypt(kit: Path) -> None:
    assert "insecure_plain" not in _read(kit).projects["demo"].schemes


def test_a_written_policy_tells_the_steward_to_review_it(kit: Path) -> None:
    head = (kit / "policy.yaml").read_text().splitlines()[:3]
    assert all(line.startswith("# ") for line in head)
    assert "reviews" in " ".join(head)


def test_an_edited_policy_is_void_until_signed_again(kit: Path) -> None:
    path = kit / "policy.yaml"
    path.write_text(path.read_text().replace("1000\n", "10\n"))
    with pytest.raises(PolicyRefused, match="not signed"):
        _read(kit)
    sign_policy(kit)
    assert _read(kit).projects["demo"].max_rounds == 10


def test_a_policy_can_be_written_again(kit: Path) -> None:
    write_policy(kit, [{**DEMO_RULES, "id": "other"}], "site-01", NOW)
    assert set(_read(kit).projects) == {"other"}


def test_rules_no_site_would_accept_leave_the_policy_as_it_was(kit: Path) -> None:
    with pytest.raises(PolicyRefused, match="must be none"):
        write_policy(kit, [{**DEMO_RULES, "metrics": "all"}], "site-01", NOW)
    assert set(_read(kit).projects) == {"demo"}


def test_files_are_for_their_owner_only(kit: Path) -> None:
    assert {p.stat().st_mode & 0o777 for p in kit.iterdir()} == {0o600}


def test_no_temporary_file_stays(kit: Path) -> None:
    names = {"policy.yaml", "policy.yaml.sig", "steward.key", "steward.pub"}
    assert {p.name for p in kit.iterdir()} == names


def test_without_the_stewards_key_nothing_is_signed(kit: Path) -> None:
    (kit / "steward.key").unlink()
    with pytest.raises(KitError, match="sign where the steward keeps it"):
        sign_policy(kit)


def test_a_kit_without_a_policy_has_nothing_to_sign(kit: Path) -> None:
    (kit / "policy.yaml").unlink()
    with pytest.raises(KitError, match="no site's kit"):
        sign_policy(kit)


def test_the_template_names_every_privacy_field_and_says_what_it_means(
    kit: Path,
) -> None:
    lines = (kit / "policy.yaml").read_text().splitlines()
    for field in fields(PrivacyRules):
        [at] = [n for n, line in enumerate(lines) if f"{field.name}:" in line.split()]
        assert lines[at - 1].strip().startswith("# "), field.name


def test_the_template_serves_persons_as_well_as_rows(kit: Path) -> None:
    modes = _read(kit).projects["demo"].privacy.modes
    assert modes == set(MODES) - {"silo"}


def test_the_template_bounds_no_more_than_a_policy_without_the_newer_fields(
    kit: Path,
) -> None:
    given = DEMO_RULES["privacy"]
    assert isinstance(given, Mapping)
    needed = {name: given[name] for name in NEEDED}
    assert _read(kit).projects["demo"].privacy == read_rules(needed, "privacy")


def test_comments_leave_a_signature_good_when_the_steward_signs_again(
    kit: Path,
) -> None:
    sign_policy(kit)
    assert set(_read(kit).projects) == {"demo"}
