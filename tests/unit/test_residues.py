"""Residues: packed and back, compared as they lie, added without a wrap."""

import numpy as np
import pytest

from fedsecure.residues import (
    MAX_MODULUS,
    add_modulo,
    are_below,
    pack,
    packed_bytes,
    unpack,
)

Q = (1 << 60) - (1 << 14) + 1
PLACES = range(16)
MODULI = [2, 1 << 48, 1 << 59, Q, MAX_MODULUS - 1]


def made(count: int = 64, modulus: int = Q) -> np.ndarray:
    return np.random.default_rng(1).integers(0, modulus, count, dtype=np.uint64)


def test_packed_bytes_are_as_many_as_are_packed() -> None:
    assert len(pack(made(160))) == packed_bytes(160) == 1200


@pytest.mark.parametrize("offset", [0, 1, 7, 40])
def test_residues_come_back_from_any_byte_on(offset: int) -> None:
    data = bytes(offset) + pack(made()) + b"more"
    assert np.array_equal(unpack(data, offset, 64), made())


@pytest.mark.parametrize("place", PLACES)
def test_the_largest_residue_comes_back_in_every_place(place: int) -> None:
    residues = np.zeros(16, dtype=np.uint64)
    residues[place] = MAX_MODULUS - 1
    assert np.array_equal(unpack(pack(residues), 0, 16), residues)


def test_unpacking_reads_a_view_and_leaves_it_as_it_was() -> None:
    data = bytearray(pack(made()))
    unpack(memoryview(data), 0, 64)[:] = 0
    assert data == pack(made())


def test_packing_leaves_the_residues_as_they_were() -> None:
    residues = made()
    pack(residues)
    assert np.array_equal(residues, made())


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("place", PLACES)
def test_a_residue_at_the_modulus_is_found_in_every_place(
    place: int, modulus: int
) -> None:
    residues = np.full(48, modulus - 1, dtype=np.uint64)
    assert are_below(modulus, pack(residues), 0, 48)
    residues[16 + place] = modulus
    assert not are_below(modulus, pack(residues), 0, 48)


@pytest.mark.parametrize("place", PLACES)
def test_a_residue_of_sixty_ones_is_found_in_every_place(place: int) -> None:
    residues = np.zeros(16, dtype=np.uint64)
    residues[place] = MAX_MODULUS - 1
    assert not are_below(Q, pack(residues), 0, 16)


def test_only_the_named_residues_are_compared() -> None:
    residues = np.zeros(48, dtype=np.uint64)
    residues[40] = Q
    assert are_below(Q, pack(residues), 0, 32)
    assert not are_below(Q, pack(residues), packed_bytes(32), 16)


@pytest.mark.parametrize("modulus", MODULI)
def test_sums_at_both_edges_are_those_of_plain_integers(modulus: int) -> None:
    edges = [0, 1, modulus // 2, modulus - 1]
    left = np.array([a for a in edges for _ in edges], dtype=np.uint64)
    right = np.array([b for _ in edges for b in edges], dtype=np.uint64)
    expected = [(a + b) % modulus for a in edges for b in edges]
    add_modulo(left, right, modulus)
    assert left.tolist() == expected
