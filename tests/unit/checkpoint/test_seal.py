"""Sealed bytes: who opens them, and that no change goes unnoticed."""

import contextlib
import json
from dataclasses import replace

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.checkpoint import seal as module
from fedsecure.checkpoint.seal import (
    CHUNK_BYTES,
    Sealed,
    from_bytes,
    object_name,
    rewrap,
    seal,
    to_bytes,
    unseal,
)
from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey
from fedsecure.update import JSON

ONE, TWO, THIEF = (BoxKey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3))
RECIPIENTS = {"agg-1": ONE.public, "agg-2": TWO.public}
RANDOM = bytes(range(39))
CONTEXT = b"run/1/update/site-1"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)


def _seal(data: bytes) -> Sealed:
    return seal(data, RECIPIENTS, CONTEXT, RANDOM)


OBJECT = to_bytes(_seal(b"data that is sealed"))


@pytest.mark.parametrize("name", ["agg-1", "agg-2"])
def test_each_recipient_opens_it(name: str) -> None:
    key = {"agg-1": ONE, "agg-2": TWO}[name]
    assert unseal(_seal(b"data"), name, key, CONTEXT) == b"data"


def test_others_do_not() -> None:
    with pytest.raises(VerificationError):
        unseal(_seal(b"data"), "agg-1", THIEF, CONTEXT)
    with pytest.raises(VerificationError, match="not sealed to agg-3"):
        unseal(_seal(b"data"), "agg-3", ONE, CONTEXT)


def test_another_context_does_not_open_it() -> None:
    with pytest.raises(VerificationError):
        unseal(_seal(b"data"), "agg-1", ONE, b"run/2/update/site-1")


def test_plain_bytes_are_not_in_the_object() -> None:
    secret = b"a secret that is long enough to be found"
    assert secret not in to_bytes(_seal(secret))


@pytest.mark.parametrize("length", [0, 38, 40])
def test_other_than_39_random_bytes_are_refused(length: int) -> None:
    with pytest.raises(VerificationError, match="39 random bytes"):
        seal(b"data", RECIPIENTS, CONTEXT, bytes(length))


def test_chunks_are_of_8_mebibytes() -> None:
    sealed = _seal(bytes(CHUNK_BYTES + 1))
    assert CHUNK_BYTES == 8 * 1024 * 1024
    assert [len(chunk) for chunk in sealed.chunks] == [CHUNK_BYTES + 16, 1 + 16]
    assert unseal(sealed, "agg-1", ONE, CONTEXT) == bytes(CHUNK_BYTES + 1)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 9, 40])
def test_any_size_comes_back(size: int) -> None:
    sealed = from_bytes(to_bytes(_seal(bytes(size))))
    assert unseal(sealed, "agg-1", ONE, CONTEXT) == bytes(size)
    assert len(sealed.chunks) == max(1, -(-size // 4))


@pytest.mark.usefixtures("small_chunks")
def test_equal_chunks_are_encrypted_apart() -> None:
    assert len(set(_seal(b"same" * 8).chunks)) == 8


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "order", [(0, 1), (1, 0, 2), (0, 0, 1, 2), (1, 2), (0, 2), (), (2,)]
)
def test_chunks_dropped_swapped_or_repeated_do_not_open(order: tuple[int, ...]) -> None:
    sealed = _seal(b"onetwothree!")
    changed = replace(sealed, chunks=tuple(sealed.chunks[i] for i in order))
    with pytest.raises(VerificationError):
        unseal(changed, "agg-1", ONE, CONTEXT)


@pytest.mark.usefixtures("small_chunks")
def test_stream_cut_at_a_chunk_does_not_open_under_a_smaller_size() -> None:
    sealed = _seal(b"onetwothre12")
    cut = replace(sealed, chunks=sealed.chunks[:2], size=8)
    with pytest.raises(VerificationError):
        unseal(cut, "agg-1", ONE, CONTEXT)


@pytest.mark.usefixtures("small_chunks")
def test_nonces_are_those_of_stream() -> None:
    # A second road: prefix (7) || counter (4, big-endian) || last (1); RANDOM's key.
    cipher, sealed = AESGCM(RANDOM[:32]), _seal(b"onetwo")
    bound = canonical({"context": CONTEXT.hex(), "size": 6, "v": 2})
    first, last = (RANDOM[32:] + end for end in (bytes(5), b"\0\0\0\1\1"))
    assert cipher.decrypt(first, sealed.chunks[0], bound) == b"onet"
    assert cipher.decrypt(last, sealed.chunks[1], bound) == b"wo"


def test_object_without_a_chunk_does_not_open_as_empty() -> None:
    empty = replace(_seal(b"data"), chunks=(), size=0)
    with pytest.raises(VerificationError, match="a chunk"):
        unseal(empty, "agg-1", ONE, CONTEXT)
    with pytest.raises(VerificationError, match="do not add up"):
        from_bytes(to_bytes(empty))


def test_chunks_of_two_sealings_do_not_mix() -> None:
    other = seal(b"data", RECIPIENTS, CONTEXT, RANDOM[::-1])
    mixed = replace(_seal(b"data"), chunks=other.chunks)
    with pytest.raises(VerificationError):
        unseal(mixed, "agg-1", ONE, CONTEXT)


def test_object_is_named_by_the_blake3_of_all_but_the_wraps() -> None:
    sealed = _seal(b"data")
    facts: dict[str, JSON] = {
        "format": 2,
        "prefix": RANDOM[32:].hex(),
        "size": 4,
        "chunks": [20],
    }
    head = canonical(facts)
    bare = len(head).to_bytes(4, "little") + head + sealed.chunks[0]
    assert object_name(to_bytes(sealed)) == "obj/" + blake3(bare).hexdigest()


def test_a_key_wrapped_anew_keeps_the_objects_name() -> None:
    sealed = _seal(b"data")
    again = rewrap(sealed, "agg-1", ONE, {"new": THIEF.public}, CONTEXT)
    assert object_name(to_bytes(again)) == object_name(to_bytes(sealed))
    assert again.wraps.keys() == {"new"}
    assert unseal(again, "new", THIEF, CONTEXT) == b"data"


def test_a_key_is_wrapped_anew_under_its_own_context_only() -> None:
    with pytest.raises(VerificationError):
        rewrap(_seal(b"data"), "agg-1", ONE, {"new": THIEF.public}, b"run/2")


@given(at=st.integers(0, len(OBJECT) - 1), mask=st.integers(1, 255))
def test_a_changed_byte_changes_the_name_or_does_not_open(at: int, mask: int) -> None:
    data = bytearray(OBJECT)
    data[at] ^= mask
    if object_name(bytes(data)) != object_name(OBJECT):
        return
    # What the name leaves out, the tie holds: it opens as it was, or not at all.
    with contextlib.suppress(VerificationError):
        sealed = from_bytes(bytes(data))
        assert unseal(sealed, "agg-1", ONE, CONTEXT) == b"data that is sealed"


@given(data=st.binary(max_size=200))
def test_any_bytes_have_a_name(data: bytes) -> None:
    assert object_name(data) == f"obj/{blake3(data).hexdigest()}"


@given(at=st.integers(0, len(OBJECT) - 1), mask=st.integers(1, 255))
def test_changed_byte_never_opens_as_something_else(at: int, mask: int) -> None:
    data = bytearray(OBJECT)
    data[at] ^= mask
    try:
        sealed = from_bytes(bytes(data))
        opened = unseal(sealed, "agg-1", ONE, CONTEXT)
    except VerificationError:
        return
    # Hexadecimal has two cases; nothing else may change unseen.
    assert opened == b"data that is sealed"
    assert sealed == from_bytes(OBJECT)


def test_another_aggregators_wrap_does_not_change_unseen() -> None:
    sealed = _seal(b"data")
    changed = replace(sealed, wraps={**sealed.wraps, "agg-2": bytes(80)})
    fewer = replace(sealed, wraps={"agg-1": sealed.wraps["agg-1"]})
    for each in (changed, fewer):
        with pytest.raises(VerificationError, match="wrapped key was changed"):
            unseal(each, "agg-1", ONE, CONTEXT)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_as_unverified(data: bytes) -> None:
    with pytest.raises(VerificationError):
        from_bytes(data)


def _with_head(**changed: object) -> bytes:
    length = int.from_bytes(OBJECT[:4], "little")
    head = {**json.loads(OBJECT[4 : 4 + length]), **changed}
    made = json.dumps(head, separators=(",", ":"), sort_keys=True).encode()
    return len(made).to_bytes(4, "little") + made + OBJECT[4 + length :]


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 1},
        {"size": 1e999},
        {"size": "19"},
        {"size": -1},
        {"size": 2**60},
        {"chunks": []},
        {"chunks": [-1, 36]},
        {"chunks": [True, 34]},
        {"chunks": [34]},
        {"chunks": 35},
        {"prefix": "zz"},
        {"prefix": 7},
        {"wraps": []},
        {"wraps": {"agg-1": 7}},
    ],
)
def test_head_that_is_not_strict_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(VerificationError):
        from_bytes(_with_head(**changed))


def test_prefix_of_another_length_is_refused() -> None:
    with pytest.raises(VerificationError, match="prefix of 8 bytes"):
        from_bytes(_with_head(prefix="00" * 8))
    with pytest.raises(VerificationError, match="prefix of 7 bytes"):
        unseal(replace(_seal(b"data"), prefix=bytes(8)), "agg-1", ONE, CONTEXT)
