"""No byte of a message can change unnoticed, and no bytes break the reader."""

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure import envelope
from fedsecure.envelope import Envelope, Kind, Scope, canonical, parse, sign, verify
from fedsecure.errors import VerificationError
from fedsecure.keys import SigningKey
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

KEY = SigningKey.from_bytes(b"k" * 32)
LIMIT = 1 << 20
# RFC 8785 has no lone surrogates, and counts end at 2**53.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**53 - 1)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT | st.floats(allow_nan=False, width=32),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
).filter(lambda value: "inf" not in repr(value))
SCOPE = st.builds(
    Scope,
    st.builds(RoundId, TEXT, NUMBER),
    TEXT,
    *(st.binary(max_size=32) for _ in range(3)),
)


def _wire(body: bytes = b"body") -> bytes:
    scope = Scope(RoundId("run", 3), "site-1", b"k" * 32, b"l" * 32, b"p" * 32)
    header: dict[str, JSON] = {"term": 1, "text": "ward ü"}
    made = sign(Kind.UPDATE, scope, header, body, signer="site-1", key=KEY)
    return made.to_bytes()


WHOLE = _wire()


def _read(data: bytes) -> None:
    verify(parse(data, LIMIT), KEY.public, kinds=(Kind.UPDATE,))


def _refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        _read(data)


@given(
    kind=st.sampled_from(Kind),
    scope=SCOPE,
    header=st.dictionaries(TEXT, VALUE, max_size=4),
    body=st.binary(max_size=100),
    signer=TEXT,
)
def test_what_was_signed_is_what_is_verified(
    kind: Kind, scope: Scope, header: dict[str, JSON], body: bytes, signer: str
) -> None:
    made = sign(kind, scope, header, body, signer=signer, key=KEY)
    read = parse(made.to_bytes(), LIMIT)
    assert read == made
    found = verify(read, KEY.public, kinds=tuple(Kind))
    assert (found.kind, found.scope, found.body) == (kind, scope, body)
    assert (found.signer, found.digest) == (signer, made.digest())
    assert found.header == header


@given(at=st.integers(0, len(WHOLE) - 1), mask=st.integers(1, 255))
def test_changed_byte_is_refused(at: int, mask: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= mask
    _refused(bytes(data))


@given(at=st.integers(0, len(WHOLE) - 1))
def test_cut_message_is_refused(at: int) -> None:
    _refused(WHOLE[:at])


@given(at=st.integers(0, len(WHOLE)), more=st.binary(min_size=1, max_size=9))
def test_added_bytes_are_refused(at: int, more: bytes) -> None:
    _refused(WHOLE[:at] + more + WHOLE[at:])


@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    _refused(data)


def _framed(head: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<4sHI", b"FSEV", 1, len(head)) + head + bytes(64) + body


@given(head=st.binary(max_size=300))
def test_any_head_is_refused(head: bytes) -> None:
    _refused(_framed(head))


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.sampled_from(["\ud800", "00", "zz", "0 0", 2**53, 10**400, [], {}, [[]]]),
)
FIELDS = "kind run round site key_id layout plan signer header body_bytes body_sha256"


@given(name=st.sampled_from(FIELDS.split()), value=HOSTILE)
def test_any_value_of_any_field_is_refused(name: str, value: object) -> None:
    (length,) = struct.unpack_from("<I", WHOLE, 6)
    fields = json.loads(WHOLE[10 : 10 + length])
    if fields[name] == value:
        return
    try:
        head = canonical({**fields, name: value})  # type: ignore[dict-item]
    except Exception:  # noqa: BLE001 - what RFC 8785 cannot say, json.dumps can
        head = json.dumps({**fields, name: value}).encode()
    _refused(_framed(head, b"body"))


@pytest.mark.parametrize("head", [b"[" * 200_000, b'{"round":' + b"9" * 5000 + b"}"])
def test_head_made_to_break_a_parser_is_refused(head: bytes) -> None:
    _refused(_framed(head))


@given(
    text=st.one_of(
        st.binary(max_size=60),
        st.sampled_from([b'{"a":NaN}', b'{"a":1e999}', b'{"a":"\\ud800"}', b"{ }"]),
        st.integers(2**53).map(lambda n: b'{"a":%d}' % n),
        st.floats().map(lambda x: b'{"a":%s}' % repr(x).encode()),
    )
)
def test_verified_header_can_be_written_down(text: bytes) -> None:
    """A peer may sign any header; what is believed must fit journal and ledger."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return  # such a header cannot even travel
    scope = Scope(RoundId("run", 3), "site-1", b"", b"", b"")
    bare = Envelope(Kind.UPDATE, scope, text, b"", "site-1", b"")
    signed = replace(bare, signature=KEY.sign(envelope._signed(bare.head)))
    try:
        found = verify(
            parse(signed.to_bytes(), LIMIT), KEY.public, kinds=(Kind.UPDATE,)
        )
    except VerificationError:
        return
    assert canonical(found.header) == text
