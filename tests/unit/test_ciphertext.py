"""Ciphertexts without a scheme: their chunks, and their bytes."""

import mmap
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsecure.ciphertext import (
    CHUNK_BLOCKS,
    SEED_BYTES,
    Ciphertext,
    Wire,
    announced_bytes,
    check_total,
    form,
    from_bytes,
    to_bytes,
    to_chunks,
    wire_chunks,
)
from fedsecure.errors import VerificationError
from fedsecure.running_sum import RunningSum

Q = (1 << 60) - (1 << 14) + 1
N = 1024
KEY = bytes(range(16))
HEADER = 40


def made(
    seed: int = 0,
    *,
    blocks: int = 2,
    polynomials: int = 1,
    seeds: bool = True,
    modulus: int = Q,
    key_id: bytes = KEY,
) -> Ciphertext:
    rng = np.random.default_rng(seed)
    shape = (blocks, polynomials, N)
    residues = rng.integers(0, modulus, shape, dtype=np.uint64)
    carried = (rng.bytes(blocks * SEED_BYTES),) if seeds else ()
    return Ciphertext(key_id, modulus, residues, carried, 1)


def read(data: bytes, *, max_summands: int = 16) -> Ciphertext:
    return from_bytes(data, key_id=KEY, max_summands=max_summands)


def summed(*summands: Ciphertext, max_summands: int = 16) -> Ciphertext:
    running = RunningSum(KEY, max_summands=max_summands)
    for summand in summands:
        running.add(summand)
    return running.total()


def three(*, blocks: int = 2) -> Ciphertext:
    return summed(*(made(i, blocks=blocks) for i in range(6, 9)))


def same(left: Ciphertext, right: Ciphertext) -> bool:
    return (
        (left.key_id, left.modulus, left.seeds, left.summands)
        == (right.key_id, right.modulus, right.seeds, right.summands)
    ) and np.array_equal(left.residues, right.residues)


# --- the wire -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        made(1),
        made(2, blocks=1),
        made(3, blocks=CHUNK_BLOCKS + 1),
        made(4, polynomials=2, seeds=False),
        made(5, seeds=False, modulus=1 << 59),
        summed(made(6), made(7), made(8)),
    ],
    ids=["seeds", "one block", "two chunks", "both", "plain", "sum"],
)
def test_bytes_and_back_is_the_same(value: Ciphertext) -> None:
    assert same(read(to_bytes(value)), value)


def test_a_block_of_4096_takes_30720_bytes_and_its_seed() -> None:
    residues = np.zeros((1, 1, 4096), np.uint64)
    value = Ciphertext(KEY, Q, residues, (bytes(SEED_BYTES),), 1)
    assert len(to_bytes(value)) == HEADER + 30_720 + SEED_BYTES


def test_sixteen_residues_are_in_fifteen_words_as_written() -> None:
    # ENCRYPTION 7.7, by plain integers: word i carries residue i below and the i-th
    # nibble of the sixteenth, low first, above.
    value = made(1, blocks=1)
    body = to_bytes(value)[HEADER:]
    residues = value.residues.ravel().tolist()
    for group in range(N // 16):
        sixteen = residues[16 * group : 16 * group + 16]
        for i in range(15):
            at = 8 * (15 * group + i)
            word = sixteen[i] | ((sixteen[15] >> 4 * i) & 15) << 60
            assert int.from_bytes(body[at : at + 8], "little") == word


@pytest.mark.parametrize("cut", [0, 1, HEADER - 1, HEADER, HEADER + 1, -SEED_BYTES, -1])
def test_a_shorter_ciphertext_is_refused(cut: int) -> None:
    with pytest.raises(VerificationError):
        read(to_bytes(made(1))[:cut])


def test_a_longer_ciphertext_is_refused() -> None:
    with pytest.raises(VerificationError, match="must be"):
        read(to_bytes(made(1)) + b"\0")


@pytest.mark.parametrize(
    ("at", "patch"),
    [
        (0, b"FSHF"),
        (4, b"\2\0"),
        (6, b"\x09"),
        (6, b"\x10"),
        (7, b"\0"),
        (7, b"\3"),
        (8, bytes(4)),
        (8, b"\1\0\x10\0"),
        (12, b"\0\0\0\0"),
        (12, b"\x11\0\x11\0"),
        (14, b"\2\0"),
        (16, bytes(8)),
        (16, (1 << 60).to_bytes(8, "little")),
        (16, b"\xff" * 8),
        (24, b"\xff"),
    ],
)
def test_a_header_out_of_bounds_is_refused(at: int, patch: bytes) -> None:
    data = bytearray(to_bytes(made(1)))
    data[at : at + len(patch)] = patch
    with pytest.raises(VerificationError):
        read(bytes(data))


def test_wire_residue_not_below_q_is_refused() -> None:
    value = made(1)
    value.residues[0, 0, 15] = Q
    with pytest.raises(VerificationError, match="not below q"):
        read(to_bytes(value))


def test_more_summands_than_agreed_are_refused() -> None:
    data = to_bytes(summed(made(1), made(2), made(3)))
    assert read(data, max_summands=3).summands == 3
    with pytest.raises(VerificationError, match="1 to 2 allowed"):
        read(data, max_summands=2)


def test_a_header_that_claims_gigabytes_reserves_nothing() -> None:
    data = bytearray(to_bytes(made(1)))
    data[8:12] = (1 << 20).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(VerificationError, match="must be"):
        read(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


# --- in chunks ------------------------------------------------------------------------


def wire(value: Ciphertext) -> Wire:
    return Wire(to_bytes(value), key_id=KEY, max_summands=16)


SUMMED = [
    made(1, blocks=2 * CHUNK_BLOCKS + 3),
    made(2, blocks=CHUNK_BLOCKS, polynomials=2, seeds=False),
    three(blocks=CHUNK_BLOCKS + 1),
]


@pytest.mark.parametrize("value", SUMMED, ids=["seeds", "both", "sum"])
def test_chunks_from_the_wire_are_the_chunks_in_memory(value: Ciphertext) -> None:
    pairs = zip(wire(value).chunks(), value.chunks(), strict=True)
    assert all(same(read_, kept) for read_, kept in pairs)


@pytest.mark.parametrize("value", SUMMED, ids=["seeds", "both", "sum"])
def test_chunks_together_are_the_whole(value: Ciphertext) -> None:
    chunks = list(wire(value).chunks())
    assert [len(c.residues) for c in chunks[:-1]] == [CHUNK_BLOCKS] * (len(chunks) - 1)
    residues = np.concatenate([c.residues for c in chunks])
    assert np.array_equal(residues, value.residues)
    seeds = zip(*(c.seeds for c in chunks), strict=True)
    assert tuple(b"".join(by_summand) for by_summand in seeds) == value.seeds


@pytest.mark.parametrize("value", SUMMED, ids=["seeds", "both", "sum"])
def test_bytes_in_chunks_are_the_bytes_at_once(value: Ciphertext) -> None:
    header = form(value, len(value.residues))
    assert b"".join(to_chunks(value)) == to_bytes(value)
    assert b"".join(wire_chunks(header, value.chunks())) == to_bytes(value)


@pytest.mark.parametrize("value", SUMMED, ids=["seeds", "both", "sum"])
def test_size_is_known_from_the_header_alone(value: Ciphertext) -> None:
    header = form(value, len(value.residues))
    assert announced_bytes(header) == len(to_bytes(value))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_are_read_where_they_lie(kind: type) -> None:
    data = kind(to_bytes(SUMMED[0]))
    found = Wire(data, key_id=KEY, max_summands=1)
    assert np.array_equal(next(found.chunks()).residues, SUMMED[0].residues[:16])


def test_a_mapped_file_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "update").write_bytes(to_bytes(SUMMED[0]))
    with (tmp_path / "update").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = Wire(mapped, key_id=KEY, max_summands=1)
    chunks = [chunk.residues for chunk in found.chunks()]
    assert np.array_equal(np.concatenate(chunks), SUMMED[0].residues)


def test_reading_a_wire_unpacks_nothing() -> None:
    data = to_bytes(made(1, blocks=200))
    tracemalloc.start()
    Wire(data, key_id=KEY, max_summands=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000


def test_residues_of_a_wire_are_checked_in_its_last_chunk_too() -> None:
    value = made(1, blocks=CHUNK_BLOCKS + 1)
    value.residues[-1, 0, -1] = Q
    with pytest.raises(VerificationError, match="not below q"):
        wire(value).check_residues()


# --- what a scheme may open -----------------------------------------------------------


def test_a_total_as_its_scheme_makes_it_may_be_opened() -> None:
    for total in (three(), made(1, polynomials=2, seeds=False)):
        check_total(total, key_id=KEY, modulus=Q, slots=N, max_summands=3)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (made(1, key_id=bytes(16)), "another run key or modulus"),
        (made(1, modulus=Q - 2), "another run key or modulus"),
        (made(1, polynomials=2), "does not carry"),
        (made(1, seeds=False), "does not carry"),
        (replace(three(), summands=2), "does not carry"),
        (replace(three(), summands=4), "4 summands, exact for 1 to 3"),
        (replace(three(), residues=np.full((2, 1, N), Q)), "not below q"),
        (replace(three(), residues=np.zeros((2, 1, 2 * N), np.uint64)), "shape"),
    ],
)
def test_a_total_that_is_not_so_is_refused(value: Ciphertext, reason: str) -> None:
    with pytest.raises(VerificationError, match=reason):
        check_total(value, key_id=KEY, modulus=Q, slots=N, max_summands=3)
