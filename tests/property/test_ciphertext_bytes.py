"""Hostile ciphertext bytes: refused by name, or exactly what they say."""

import struct

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from fedsecure.ciphertext import SEED_BYTES, Ciphertext, from_bytes, to_bytes
from fedsecure.errors import VerificationError

KEY = bytes(range(16))
N = 1024
HEADER = struct.Struct("<4sHBBIHHQ16s")
_RNG = np.random.default_rng(1)
GOOD = to_bytes(
    Ciphertext(
        KEY,
        (1 << 60) - (1 << 14) + 1,
        _RNG.integers(0, 1 << 59, (1, 1, N), dtype=np.uint64),
        (_RNG.bytes(SEED_BYTES), _RNG.bytes(SEED_BYTES)),
        2,
    )
)


def refused_or_exact(data: bytes) -> None:
    try:
        found = from_bytes(data, key_id=KEY, max_summands=4)
    except VerificationError:
        return
    assert found.residues.max() < found.modulus
    assert to_bytes(found) == data


@given(st.binary(max_size=200))
@example(b"")
@example(GOOD[:40])
def test_any_bytes_are_refused_or_exact(data: bytes) -> None:
    refused_or_exact(data)


@given(
    st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_changed_bytes_are_refused_or_exact(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    refused_or_exact(bytes(data))


@given(
    log_n=st.integers(0, 255),
    polynomials=st.integers(0, 255),
    blocks=st.integers(0, (1 << 32) - 1),
    summands=st.integers(0, (1 << 16) - 1),
    seeds=st.integers(0, (1 << 16) - 1),
    modulus=st.integers(0, (1 << 64) - 1),
    length=st.integers(0, 20_000),
)
@example(12, 1, 1 << 20, 4, 4, 1 << 59, 9_000)
@example(10, 1, 1, 1, 0, 2, 7_680)
@example(10, 2, 1, 4, 4, 1 << 59, 15_616)
def test_any_header_is_refused_or_exact(
    log_n: int,
    polynomials: int,
    blocks: int,
    summands: int,
    seeds: int,
    modulus: int,
    length: int,
) -> None:
    fields = (log_n, polynomials, blocks, summands, seeds, modulus, KEY)
    refused_or_exact(HEADER.pack(b"FSHE", 1, *fields) + bytes(length))


@given(st.integers(0, len(GOOD)))
def test_cut_bytes_are_refused_or_exact(length: int) -> None:
    refused_or_exact(GOOD[:length])


@given(
    residues=st.lists(st.integers(0, (1 << 60) - 2), min_size=16, max_size=16),
    seeds=st.booleans(),
)
def test_any_residues_come_back(residues: list[int], seeds: bool) -> None:
    array = np.tile(np.array(residues, np.uint64), N // 16).reshape(1, 1, N)
    carried = (bytes(SEED_BYTES),) if seeds else ()
    value = Ciphertext(KEY, (1 << 60) - 1, array, carried, 1)
    found = from_bytes(to_bytes(value), key_id=KEY, max_summands=1)
    assert np.array_equal(found.residues, array)
    assert found.seeds == carried
