"""A manifest: its one form, its signature, and what is refused of it."""

import hashlib
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.checkpoint.manifest import (
    MAX_BYTES,
    Manifest,
    Unread,
    read_manifest,
)
from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SIGNATURE_BYTES, SigningKey

KEY = SigningKey.from_bytes(b"k" * 32)
OTHER = SigningKey.from_bytes(b"o" * 32)
KEYS = {"agg-1": KEY.public, "agg-2": OTHER.public}
MANIFEST = Manifest(
    run="run",
    round=2,
    sequence=3,
    term=4,
    after=1,
    prev="aa",
    release="bb",
    root="cc",
    object="obj/dd",
    size=100,
    key_id="ee",
    plan="ff",
    time="2026-01-01T00:00:00.000+00:00",
    writer="agg-1",
    layout="ab",
    app="cd",
    heads='{"site-1":[1,"00","00"]}',
    roster=5,
    roster_digest="ab" * 32,
    federation="cd" * 32,
)
SIGNED = MANIFEST.signed(KEY)
BEFORE = replace(MANIFEST, roster=0, roster_digest="", federation="")
ROSTER_FIELDS = {"roster", "roster_digest", "federation"}
# As it lies in the stores of runs that were begun before.
STORED_BEFORE = (
    b'{"after":1,"app":"cd","format":2,"heads":"{\\"site-1\\":[1,\\"00\\",\\"00\\"]}",'
    b'"key_id":"ee","layout":"ab","object":"obj/dd","plan":"ff","prev":"aa",'
    b'"release":"bb","root":"cc","round":2,"run":"run","sequence":3,"size":100,'
    b'"term":4,"time":"2026-01-01T00:00:00.000+00:00","writer":"agg-1"}'
)
LABEL = b"fedsecure-manifest-v1\0"


def _signed(values: object, key: SigningKey = KEY) -> bytes:
    body = values if isinstance(values, bytes) else json.dumps(values).encode()
    return key.sign(LABEL + body) + body


def _values(**changed: object) -> dict[str, object]:
    return {**json.loads(SIGNED[SIGNATURE_BYTES:]), **changed}


def test_what_was_signed_is_read() -> None:
    assert read_manifest(SIGNED, KEYS) == MANIFEST


def test_body_is_canonical_json_of_all_fields() -> None:
    body = SIGNED[SIGNATURE_BYTES:]
    values = json.loads(body)
    assert canonical(values) == body
    assert set(values) == {"format", *(f.name for f in fields(Manifest))}


def test_what_an_earlier_version_stored_is_read_as_naming_no_roster() -> None:
    found = read_manifest(_signed(STORED_BEFORE), KEYS)
    assert found == BEFORE
    assert (found.format, found.roster, found.federation) == (2, 0, "")


def test_what_an_earlier_version_stored_keeps_the_digest_its_head_names() -> None:
    found = read_manifest(_signed(STORED_BEFORE), KEYS)
    assert found.signed(KEY) == _signed(STORED_BEFORE)
    assert found.digest() == hashlib.sha256(LABEL + STORED_BEFORE).digest()


def test_the_two_formats_are_told_apart_by_their_fields_alone() -> None:
    body = json.loads(BEFORE.signed(KEY)[SIGNATURE_BYTES:])
    assert body["format"] == 2
    assert {*body} & ROSTER_FIELDS == set()
    assert MANIFEST.format == 3


@pytest.mark.parametrize("field", [f.name for f in fields(Manifest)])
def test_digest_covers_every_field(field: str) -> None:
    value = getattr(MANIFEST, field)
    other = replace(MANIFEST, **{field: value + (1 if type(value) is int else "x")})
    assert other.digest() != MANIFEST.digest()


def test_digest_is_the_same_whoever_signed() -> None:
    assert len(MANIFEST.digest()) == 32
    assert read_manifest(SIGNED, KEYS).digest() == MANIFEST.digest()


def test_another_aggregators_signature_is_refused() -> None:
    with pytest.raises(VerificationError):
        read_manifest(MANIFEST.signed(OTHER), KEYS)


def test_writer_we_do_not_know_is_refused() -> None:
    with pytest.raises(Unread, match="know, it says by 'agg-1' under roster 5"):
        read_manifest(SIGNED, {"agg-2": OTHER.public})


def test_unknown_writer_tells_the_roster_that_is_claimed() -> None:
    with pytest.raises(Unread) as caught:
        read_manifest(SIGNED, {})
    assert (caught.value.roster, caught.value.federation) == (5, "cd" * 32)


@pytest.mark.parametrize("roster", [None, "9", True, 9.5, [9], -3])
def test_roster_claimed_by_an_unknown_writer_is_a_number_or_none(
    roster: object,
) -> None:
    body = json.dumps({"writer": "agg-9", "roster": roster, "federation": 7}).encode()
    with pytest.raises(Unread, match=r"by 'agg-9'$") as caught:
        read_manifest(_signed(body), KEYS)
    assert caught.value.roster <= 0
    assert caught.value.federation == ""


def test_signature_for_another_purpose_is_refused() -> None:
    body = SIGNED[SIGNATURE_BYTES:]
    with pytest.raises(VerificationError):
        read_manifest(KEY.sign(body) + body, KEYS)


@given(at=st.integers(0, len(SIGNED) - 1), mask=st.integers(1, 255))
def test_changed_byte_is_refused(at: int, mask: int) -> None:
    data = bytearray(SIGNED)
    data[at] ^= mask
    with pytest.raises(VerificationError):
        read_manifest(bytes(data), KEYS)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_as_unverified(data: bytes) -> None:
    with pytest.raises(VerificationError):
        read_manifest(data, KEYS)


def test_larger_than_one_mebibyte_is_refused_unparsed() -> None:
    with pytest.raises(VerificationError, match="at most 1048576"):
        read_manifest(SIGNED + bytes(MAX_BYTES), KEYS)


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 1},
        {"format": True},
        {"more": 1},
        {"round": "2"},
        {"round": True},
        {"sequence": -1},
        {"size": 1.5},
        {"run": 7},
        {"prev": None},
        {"object": ["obj/dd"]},
        {"format": 2},
        {"format": 2, "roster": 0, "roster_digest": "", "federation": ""},
        {"format": 4},
        {"format": "3"},
        {"roster": 0},
        {"roster": 0, "roster_digest": "", "federation": ""},
        {"roster": -1},
        {"roster": "5"},
        {"roster": True},
        {"roster_digest": ""},
        {"roster_digest": "AB" * 32},
        {"roster_digest": "ab" * 33},
        {"roster_digest": "ab" * 32 + "\n"},
        {"roster_digest": 7},
        {"federation": ""},
        {"federation": "../" * 10},
        {"federation": None},
    ],
)
def test_field_that_is_not_strict_is_refused_although_signed(
    changed: dict[str, object],
) -> None:
    body = json.dumps(_values(**changed), separators=(",", ":"), sort_keys=True)
    with pytest.raises(VerificationError):
        read_manifest(_signed(body.encode()), KEYS)


@pytest.mark.parametrize("field", ["root", *sorted(ROSTER_FIELDS)])
def test_missing_field_is_refused_although_signed(field: str) -> None:
    values = _values()
    del values[field]
    body = json.dumps(values, separators=(",", ":"), sort_keys=True).encode()
    with pytest.raises(VerificationError, match="does not have the fields"):
        read_manifest(_signed(body), KEYS)


def test_second_form_of_the_same_manifest_is_refused_although_signed() -> None:
    with pytest.raises(VerificationError, match="canonical"):
        read_manifest(_signed(_values()), KEYS)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"7",
        b'"agg-1"',
        b"null",
        b'{"writer":["agg-1"]}',
        b'{"writer":"agg-1"}',
        b'{"format":2,"writer":"agg-1"}',
        b'{"format":3,"writer":"agg-1"}',
        b'{"run":"\\ud800","writer":"agg-1"}',
        b'{"round":NaN,"writer":"agg-1"}',
        b'{"round":9007199254740993,"writer":"agg-1"}',
        b"[" * 100_000,
    ],
)
def test_body_that_is_no_manifest_is_refused_although_signed(body: bytes) -> None:
    with pytest.raises(VerificationError):
        read_manifest(_signed(body), KEYS)


@pytest.mark.parametrize(("plan", "app"), [("ff", "cd"), ("ff", "")])
def test_a_run_goes_on_under_its_configuration_and_code(plan: str, app: str) -> None:
    MANIFEST.require(plan, app)


def test_a_run_whose_code_nobody_said_goes_on() -> None:
    replace(MANIFEST, app="").require("ff", "anything")


def test_an_upgrade_goes_on_from_code_that_its_operator_names() -> None:
    MANIFEST.require("ff", "new", before=["ab", "cd"])


def test_an_upgrade_goes_on_from_no_other_code() -> None:
    with pytest.raises(ConfigurationError, match="name the first digest in code_befor"):
        MANIFEST.require("ff", "new", before=["ab"])


def test_another_configuration_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigurationError, match=r"configuration \(plan\) ff, ours is 00"
    ):
        MANIFEST.require("00", "cd")


def test_other_code_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="code cd, ours is 00: install"):
        MANIFEST.require("ff", "00")
