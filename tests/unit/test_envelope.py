"""Signed messages: what is refused, and with which words."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedsecure.envelope import (
    Kind,
    Scope,
    canonical,
    parse,
    read_head,
    sign,
    sign_head,
    verify,
    verify_head,
)
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SigningKey
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

KEY = SigningKey.from_bytes(b"k" * 32)
OTHER = SigningKey.from_bytes(b"o" * 32)
SCOPE = Scope(RoundId("run", 3), "site-1", b"k" * 32, b"l" * 32, b"p" * 32)


def _wire(header: dict[str, JSON] | None = None, body: bytes = b"body") -> bytes:
    made = sign(Kind.UPDATE, SCOPE, header or {}, body, signer="site-1", key=KEY)
    return made.to_bytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "ü"]}, '{"a":[true,null,"ü"],"b":1}'),
        ({"x": 1.0, "y": 1e21, "z": -0.0}, '{"x":1,"y":1e+21,"z":0}'),
        ("\u2028\n", '"\u2028\\n"'),
    ],
)
def test_canonical_is_rfc_8785(value: JSON, text: str) -> None:
    assert canonical(value) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, b"bytes", {1: 2}])
def test_what_json_cannot_keep_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="not canonical JSON"):
        canonical(value)  # type: ignore[arg-type]


def test_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(VerificationError, match="at most 10"):
        parse(_wire(), 10)


def test_short_message_is_refused() -> None:
    with pytest.raises(VerificationError, match="too short"):
        parse(b"FSEV", 100)


def test_later_format_is_refused() -> None:
    data = bytearray(_wire())
    struct.pack_into("<H", data, 4, 2)
    with pytest.raises(VerificationError, match="format 1"):
        parse(bytes(data), 10_000)


def test_head_that_announces_more_than_is_there_is_refused() -> None:
    data = bytearray(_wire())
    struct.pack_into("<I", data, 6, 2**32 - 1)
    with pytest.raises(VerificationError, match="does not fit"):
        parse(bytes(data), 10_000)


def test_another_body_of_the_same_length_is_refused() -> None:
    with pytest.raises(VerificationError, match="body was changed"):
        parse(_wire(body=b"body")[:-4] + b"BODY", 10_000)


def test_body_is_a_view_of_the_message() -> None:
    data = _wire(body=b"body")
    body = parse(data, 10_000).body
    assert isinstance(body, memoryview)
    assert (body.obj, bytes(body), body.readonly) == (data, b"body", True)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_message_is_read_from_whatever_holds_bytes(
    make: Callable[[bytes], bytes | bytearray | memoryview],
) -> None:
    data = make(_wire({"a": 1}))
    found = verify(parse(data, 10_000), KEY.public, kinds=(Kind.UPDATE,))
    assert (found.body, found.header) == (b"body", {"a": 1})


def test_head_signed_without_its_body_is_that_of_the_whole_message() -> None:
    whole = sign(Kind.UPDATE, SCOPE, {"a": 1}, b"body", signer="site-1", key=KEY)
    there = (4, hashlib.sha256(b"body").hexdigest())
    head = sign_head(Kind.UPDATE, SCOPE, {"a": 1}, there, signer="site-1", key=KEY)
    assert head == whole.head
    assert head.digest() == whole.digest()
    assert head.to_bytes() + b"body" == whole.to_bytes()


def test_head_is_read_and_verified_without_its_body() -> None:
    data = _wire({"a": 1})
    head, start = read_head(data[:-4])
    assert (data[start:], head.body_bytes) == (b"body", 4)
    assert verify_head(head, KEY.public, kinds=(Kind.UPDATE,)) == {"a": 1}


def test_head_for_another_body_does_not_verify() -> None:
    head, _ = read_head(_wire())
    for change in ({"body_bytes": 5}, {"body_sha256": "0" * 64}):
        forged = replace(head, **change)
        with pytest.raises(VerificationError, match="signature"):
            verify_head(forged, KEY.public, kinds=(Kind.UPDATE,))


def test_another_key_does_not_verify() -> None:
    with pytest.raises(VerificationError, match="signature"):
        verify(parse(_wire(), 10_000), OTHER.public, kinds=(Kind.UPDATE,))


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "release"},
        {"scope": replace(SCOPE, site="site-2")},
        {"scope": replace(SCOPE, round=RoundId("run", 4))},
        {"header": b'{"term":9}'},
        {"body": b"other"},
        {"signer": "site-2"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_signature_covers_every_field(changed: dict[str, object]) -> None:
    forged = replace(parse(_wire(), 10_000), **changed)  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match="signature"):
        verify(forged, KEY.public, kinds=tuple(Kind))


def test_kind_that_is_not_expected_is_refused() -> None:
    with pytest.raises(VerificationError, match="'update', expected release, report"):
        verify(parse(_wire(), 10_000), KEY.public, kinds=(Kind.RELEASE, Kind.REPORT))


def test_kind_this_version_does_not_know_is_refused() -> None:
    made = sign("later", SCOPE, {}, b"", signer="s", key=KEY)  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match="'later'"):
        verify(made, KEY.public, kinds=tuple(Kind))


@pytest.mark.parametrize("loss", [1e17, -1e300, 5e-324, 2.0**53, 0.1])
def test_number_of_any_size_stays_what_it_was(loss: float) -> None:
    found = verify(
        parse(_wire({"loss": loss}), 10_000), KEY.public, kinds=(Kind.UPDATE,)
    )
    assert found.header["loss"] == loss
    assert canonical(found.header) == canonical({"loss": loss})


def test_same_facts_give_the_same_bytes() -> None:
    assert _wire({"a": 1, "b": 2}) == _wire({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", RoundId("run", 4)),
        ("site", "site-2"),
        ("key_id", b"x"),
        ("layout", b""),
        ("plan", b"y"),
    ],
)
def test_scope_is_required_field_by_field(field: str, value: object) -> None:
    found = verify(parse(_wire(), 10_000), KEY.public, kinds=(Kind.UPDATE,))
    found.require(SCOPE)
    other = replace(SCOPE, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=f"for another {field}"):
        found.require(other)
