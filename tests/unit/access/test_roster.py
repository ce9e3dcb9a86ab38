import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.access.roster import (
    MAX_BYTES,
    Member,
    Role,
    Roster,
    federation_id,
    newest,
    read_roster,
)
from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.update import JSON

ROOT = SigningKey.from_bytes(bytes(range(32)))
FEDERATION = federation_id(ROOT.public)
LABEL = b"fedsecure-roster-v1\0"


def _member(name: str, role: Role) -> Member:
    seed = name.encode().ljust(32, b".")
    signing, box = SigningKey.from_bytes(seed), BoxKey.from_bytes(seed)
    site, leads = role == Role.SITE, role == Role.AGGREGATOR
    return Member(
        name,
        role,
        "Charité",
        signing.public,
        box.public,
        "ecdsa-sha2-nistp384 AAAA" if site else "",
        "agg.example.org:9091" if leads else "",
    )


MEMBERS = {
    "agg-1": _member("agg-1", Role.AGGREGATOR),
    "site-01": _member("site-01", Role.SITE),
    "site-02": _member("site-02", Role.SITE),
}
ROSTER = Roster(FEDERATION, 3, MEMBERS, "2027-01-01T00:00:00Z", frozenset({"site-02"}))
SIGNED = ROSTER.signed(ROOT)


def _signed(changes: Mapping[str, JSON]) -> bytes:
    """Sign a body that differs from the good one in some fields."""
    body = canonical({**json.loads(SIGNED[96:]), **changes})
    return _sign(body)


def _sign(body: bytes) -> bytes:
    return ROOT.public.raw + ROOT.sign(LABEL + body) + body


def _rows(**changes: JSON) -> list[JSON]:
    rows: list[JSON] = json.loads(SIGNED[96:])["members"]
    first = rows[0]
    assert isinstance(first, dict)
    first.update(changes)
    return rows


def test_a_signed_roster_comes_back_as_it_was() -> None:
    assert read_roster(SIGNED, FEDERATION) == ROSTER


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(position: int, flip: int) -> None:
    data = bytearray(SIGNED)
    data[position] ^= flip
    with pytest.raises(VerificationError):
        read_roster(bytes(data), FEDERATION)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(VerificationError):
        read_roster(data, FEDERATION)


@given(st.binary(max_size=200))
def test_any_signed_body_that_is_no_roster_is_refused(body: bytes) -> None:
    with pytest.raises(VerificationError):
        read_roster(_sign(b"{" + body), FEDERATION)


def test_a_roster_of_another_federation_is_refused() -> None:
    other = SigningKey.generate()
    with pytest.raises(VerificationError, match="another federation"):
        read_roster(ROSTER.signed(other), FEDERATION)


def test_size_is_looked_at_before_the_signature() -> None:
    with pytest.raises(VerificationError, match=f"at most {MAX_BYTES}"):
        read_roster(SIGNED + bytes(MAX_BYTES), FEDERATION)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"version": 0},
        {"version": "3"},
        {"version": True},
        {"version": 3.5},
        {"expires": "never"},
        {"expires": None},
        {"members": {}},
        {"members": [1]},
        {"members": None},
        {"revoked": ["nobody"]},
        {"revoked": ["site-02", "site-02"]},
        {"revoked": [["site-02"]]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_signed_roster_with_a_bad_field_is_refused(
    changes: Mapping[str, JSON],
) -> None:
    with pytest.raises(VerificationError):
        read_roster(_signed(changes), FEDERATION)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "king"},
        {"signing": "00"},
        {"signing": 7},
        {"box": "zz"},
        {"name": 7},
        {"name": "site-01"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_signed_roster_with_a_bad_member_is_refused(
    changes: Mapping[str, JSON],
) -> None:
    with pytest.raises(VerificationError):
        read_roster(_signed({"members": _rows(**changes)}), FEDERATION)


def test_a_member_named_twice_is_refused() -> None:
    rows = _rows()
    with pytest.raises(VerificationError, match="canonical"):
        read_roster(_signed({"members": [*rows, rows[0]]}), FEDERATION)


def test_spaces_in_the_signed_body_are_refused() -> None:
    body = json.dumps(json.loads(SIGNED[96:]), ensure_ascii=False).encode()
    with pytest.raises(VerificationError, match="canonical"):
        read_roster(_sign(body), FEDERATION)


def test_a_rosters_digest_is_the_same_wherever_it_was_read() -> None:
    assert read_roster(SIGNED, FEDERATION).digest() == ROSTER.digest()
    assert len(bytes.fromhex(ROSTER.digest())) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"federation": "ab" * 32},
        {"version": 4},
        {"expires": "2027-01-01T00:00:01Z"},
        {"revoked": frozenset[str]()},
        {"members": {"site-02": MEMBERS["site-02"]}},
    ],
)
def test_a_rosters_digest_covers_every_field(change: dict[str, Any]) -> None:
    assert replace(ROSTER, **change).digest() != ROSTER.digest()


def test_a_member_is_found_in_its_role() -> None:
    assert ROSTER.member("site-01", Role.SITE) is MEMBERS["site-01"]


def test_a_member_in_another_role_is_refused_by_name() -> None:
    with pytest.raises(VerificationError, match="'site-01' is no aggregator"):
        ROSTER.aggregator("site-01")


def test_an_unknown_name_is_refused_with_the_rosters_version() -> None:
    with pytest.raises(VerificationError, match="'site-09' is no site in roster 3"):
        ROSTER.site("site-09")


def test_a_revoked_member_is_refused_as_such() -> None:
    with pytest.raises(VerificationError, match="'site-02' is revoked in roster 3"):
        ROSTER.site("site-02")


def test_a_revoked_member_is_in_no_list() -> None:
    assert [m.name for m in ROSTER.of(Role.SITE)] == ["site-01"]


def test_the_keys_of_a_site_are_found() -> None:
    assert ROSTER.site("site-01") == MEMBERS["site-01"].signing
    assert ROSTER.box("site-01") == MEMBERS["site-01"].box


def test_one_second_before_its_end_a_roster_counts() -> None:
    ROSTER.require_current("2026-12-31T23:59:59Z")


def test_at_its_end_a_roster_counts_no_more() -> None:
    with pytest.raises(VerificationError, match="expired on 2027-01-01"):
        ROSTER.require_current("2027-01-01T00:00:00Z")


def test_a_roster_without_an_end_never_counts() -> None:
    with pytest.raises(VerificationError, match="no date"):
        replace(ROSTER, expires="").require_current("2026-01-01T00:00:00Z")


@pytest.mark.parametrize("version", [1, 3])
def test_a_version_that_is_not_higher_does_not_replace(version: int) -> None:
    with pytest.raises(VerificationError, match="only rise"):
        replace(ROSTER, version=version).require_newer(ROSTER)


def test_a_higher_version_replaces() -> None:
    replace(ROSTER, version=4).require_newer(ROSTER)


def test_another_federations_roster_does_not_replace() -> None:
    with pytest.raises(VerificationError, match="another federation"):
        replace(ROSTER, version=4, federation="00").require_newer(ROSTER)


def test_the_newest_of_several_wins() -> None:
    newer = replace(ROSTER, version=4)
    assert newest([ROSTER, newer, ROSTER]) is newer


def test_two_different_rosters_of_one_version_are_refused() -> None:
    fork = replace(ROSTER, revoked=frozenset())
    with pytest.raises(VerificationError, match="two different rosters of version 3"):
        newest([ROSTER, fork])


def test_no_roster_is_no_federation() -> None:
    with pytest.raises(VerificationError, match="no roster"):
        newest([])


def test_a_version_that_is_no_number_is_refused() -> None:
    body = SIGNED[96:].replace(b'"version":3', b'"version":1e999')
    with pytest.raises(VerificationError, match="not well formed"):
        read_roster(_sign(body), FEDERATION)
