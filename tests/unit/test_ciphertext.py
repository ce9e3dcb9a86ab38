"""Ciphertexts without a scheme: what is summed, refused, and on the wire."""

import tracemalloc

import numpy as np
import pytest

from fedsecure.ciphertext import (
    CHUNK_BLOCKS,
    SEED_BYTES,
    Ciphertext,
    from_bytes,
    to_bytes,
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


def same(left: Ciphertext, right: Ciphertext) -> bool:
    return (
        (left.key_id, left.modulus, left.seeds, left.summands)
        == (right.key_id, right.modulus, right.seeds, right.summands)
    ) and np.array_equal(left.residues, right.residues)


# --- the sum --------------------------------------------------------------------------


def test_sum_is_that_of_plain_integers_modulo_q() -> None:
    parts = [made(i) for i in range(3)]
    columns = zip(*(p.residues.ravel().tolist() for p in parts), strict=True)
    expected = [sum(column) % Q for column in columns]
    assert summed(*parts).residues.ravel().tolist() == expected


def test_largest_residues_do_not_wrap() -> None:
    full = Ciphertext(KEY, Q, np.full((1, 1, N), Q - 1, np.uint64), (), 1)
    total = summed(*[full] * 16)
    assert set(total.residues.ravel().tolist()) == {16 * (Q - 1) % Q}


def test_sum_of_more_than_a_chunk_of_blocks_is_right_in_each() -> None:
    one, two = made(1, blocks=CHUNK_BLOCKS + 1), made(2, blocks=CHUNK_BLOCKS + 1)
    wide = one.residues.astype(object) + two.residues.astype(object)
    assert np.array_equal(summed(one, two).residues.astype(object), wide % Q)


def test_order_does_not_change_the_residues() -> None:
    one, two, three = made(1), made(2), made(3)
    ahead, back = summed(one, two, three), summed(three, two, one)
    assert np.array_equal(ahead.residues, back.residues)


def test_seeds_stay_by_summand_in_the_order_added() -> None:
    one, two = made(1), made(2)
    assert summed(two, one).seeds == two.seeds + one.seeds


def test_sum_counts_its_summands() -> None:
    assert summed(made(1), made(2), made(3)).summands == 3


def test_a_summand_is_not_changed_by_what_is_added_to_it() -> None:
    first = made(1)
    before = first.residues.copy()
    summed(first, made(2))
    assert np.array_equal(first.residues, before)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (made(2, key_id=bytes(16)), "another run key"),
        (made(2, modulus=Q - 2), "the sum is"),
        (made(2, blocks=3), "the sum is"),
        (made(2, polynomials=2), "the sum is"),
        (made(2, seeds=False), "the sum is"),
        (made(1), "repeats a seed"),
    ],
    ids=["key", "modulus", "blocks", "polynomials", "form", "again"],
)
def test_what_does_not_fit_the_sum_is_refused(bad: Ciphertext, reason: str) -> None:
    running = RunningSum(KEY, max_summands=16)
    running.add(made(1))
    with pytest.raises(VerificationError, match=reason):
        running.add(bad)


def test_what_was_refused_left_no_trace() -> None:
    running = RunningSum(KEY, max_summands=16)
    running.add(made(1))
    with pytest.raises(VerificationError):
        running.add(made(1))
    running.add(made(2))
    assert same(running.total(), summed(made(1), made(2)))


def test_residue_not_below_q_is_refused() -> None:
    bad = made(1)
    bad.residues[1, 0, 5] = Q
    with pytest.raises(VerificationError, match="not below q"):
        summed(bad)


def test_one_seed_in_two_blocks_is_refused() -> None:
    once = made(1)
    twice = (once.seeds[0][:SEED_BYTES] * 2,)
    with pytest.raises(VerificationError, match="repeats a seed"):
        summed(Ciphertext(KEY, Q, once.residues, twice, 1))


def test_one_seed_of_an_earlier_update_in_another_block_is_refused() -> None:
    one, two = made(1), made(2)
    stolen = (two.seeds[0][:SEED_BYTES] + one.seeds[0][:SEED_BYTES],)
    with pytest.raises(VerificationError, match="repeats a seed"):
        summed(one, Ciphertext(KEY, Q, two.residues, stolen, 1))


def test_one_summand_more_than_there_is_room_for_is_refused() -> None:
    assert summed(made(1), made(2), max_summands=2).summands == 2
    with pytest.raises(VerificationError, match="3 summands, room for 2"):
        summed(made(1), made(2), made(3), max_summands=2)


def test_nothing_added_is_no_sum() -> None:
    with pytest.raises(VerificationError, match="no update"):
        RunningSum(KEY, max_summands=3).total()


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
