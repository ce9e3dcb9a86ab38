"""Sealing in one pass is the same as sealing at once, and as hard to fool."""

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.checkpoint import seal
from fedsecure.checkpoint.stream import RING, Sealing, unseal
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey

BOX = BoxKey.from_bytes(bytes([1]) * 32)
RECIPIENTS = {"agg-1": BOX.public}
CONTEXT = b"release"
RANDOM = bytes(range(39))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_BYTES", 4)


def _secret(head: seal.Head) -> bytes:
    return seal.data_key(head, "agg-1", BOX, CONTEXT)


def _stored(plain: list[bytes], size: int | None = None) -> tuple[bytes, str]:
    length = sum(map(len, plain)) if size is None else size
    sealing = Sealing(length, RECIPIENTS, CONTEXT, RANDOM)
    stored = b"".join(map(bytes, sealing.pieces(plain)))
    assert len(sealing) == len(stored)
    return stored, sealing.name


def _opened(stored: bytes, max_bytes: int = 1000) -> tuple[bytes, str]:
    plain, name = unseal(io.BytesIO(stored), max_bytes, _secret, CONTEXT)
    return bytes(plain), name


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 9, 40])
def test_what_is_sealed_piece_by_piece_opens_at_once(size: int) -> None:
    data = bytes(range(size))
    stored, name = _stored([data[:3], data[3:4], data[4:]])
    assert seal.unseal(seal.from_bytes(stored), "agg-1", BOX, CONTEXT) == data
    assert seal.object_name(stored) == name


@pytest.mark.parametrize("size", [0, 1, 4, 5, 8, 40])
def test_what_is_sealed_at_once_opens_piece_by_piece(size: int) -> None:
    data = bytes(range(size))
    stored = seal.to_bytes(seal.seal(data, RECIPIENTS, CONTEXT, RANDOM))
    assert _opened(stored) == (data, seal.object_name(stored))


def test_a_piece_is_good_until_the_ring_comes_round() -> None:
    sealing = Sealing(80, RECIPIENTS, CONTEXT, RANDOM)
    held, copies = [], []
    for piece in sealing.pieces([bytes(80)]):
        held.append(piece)
        copies.append(bytes(piece))
        assert [bytes(p) for p in held[-RING:]] == copies[-RING:]
    assert [bytes(p) for p in held] != copies


def test_each_plain_chunk_is_told_of_in_order() -> None:
    told: list[bytes] = []
    stored, _ = _stored([b"onetwothree"])
    unseal(
        io.BytesIO(stored),
        1000,
        _secret,
        CONTEXT,
        lambda view: told.append(bytes(view)),
    )
    assert told == [b"onet", b"woth", b"ree"]


def test_a_stream_that_is_not_kept_is_told_of_whole() -> None:
    told: list[bytes] = []
    held: list[memoryview] = []

    def opened(chunk: memoryview) -> None:
        held.append(chunk)
        told.append(bytes(chunk))
        assert [bytes(view) for view in held[-2:]] == told[-2:]

    stored, name = _stored([bytes(range(30))])
    first, found = unseal(
        io.BytesIO(stored), 1000, _secret, CONTEXT, opened, keep=False
    )
    assert b"".join(told) == bytes(range(30))
    assert (bytes(first), found) == (bytes(range(4)), name)


@pytest.mark.parametrize("size", [3, 5])
def test_a_stream_of_another_size_than_announced_is_refused(size: int) -> None:
    with pytest.raises(VerificationError, match="announced"):
        _stored([b"data"], size)


def test_an_object_larger_than_allowed_is_not_read() -> None:
    stored, _ = _stored([bytes(40)])
    with pytest.raises(VerificationError, match="at most 100"):
        _opened(stored, 100)


@pytest.mark.parametrize("ends", [0, 3, 20, -1])
def test_an_object_cut_short_does_not_open(ends: int) -> None:
    stored, _ = _stored([bytes(9)])
    with pytest.raises(VerificationError):
        _opened(stored[:ends])


def test_bytes_behind_an_object_are_refused() -> None:
    with pytest.raises(VerificationError, match="do not add up"):
        _opened(_stored([bytes(9)])[0] + b"1")


def test_a_file_that_is_read_in_bits_opens() -> None:
    class Slow(io.BytesIO):
        def readinto(self, into: memoryview, /) -> int:  # type: ignore[override]
            return super().readinto(into[:3])

    stored, _ = _stored([b"a slow file"])
    assert bytes(unseal(Slow(stored), 1000, _secret, CONTEXT)[0]) == b"a slow file"


def test_a_head_of_any_length_is_not_believed() -> None:
    with pytest.raises(VerificationError, match="head of 4294967295"):
        _opened(b"\xff" * 100)


def _pieces(cuts: list[int], data: bytes) -> Iterator[bytes]:
    start = 0
    for cut in cuts:
        yield data[start : start + cut]
        start += cut
    yield data[start:]


@given(cuts=st.lists(st.integers(0, 9), max_size=9), size=st.integers(0, 40))
def test_how_a_stream_is_cut_does_not_matter(cuts: list[int], size: int) -> None:
    data = bytes(range(size))
    stored, name = _stored(list(_pieces(cuts, data)))
    assert _opened(stored) == (data, name)
    assert name == _stored([data])[1]  # wraps are random, and not in the name


STORED = _stored([b"data that is sealed"])[0]


@given(at=st.integers(0, len(STORED) - 1), mask=st.integers(1, 255))
def test_a_changed_byte_never_opens_as_something_else(at: int, mask: int) -> None:
    data = bytearray(STORED)
    data[at] ^= mask
    try:
        opened, _ = _opened(bytes(data))
    except VerificationError:
        return
    assert opened == b"data that is sealed"
