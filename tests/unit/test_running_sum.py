"""The sum of updates: what is added, what is refused, and what a refusal leaves."""

from collections.abc import Callable

import numpy as np
import pytest

from fedsecure.ciphertext import CHUNK_BLOCKS, SEED_BYTES, Ciphertext, Wire, to_bytes
from fedsecure.errors import VerificationError
from fedsecure.running_sum import RunningSum, Summand

Q = (1 << 60) - (1 << 14) + 1
N = 1024
KEY = bytes(range(16))


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


# --- from the wire --------------------------------------------------------------------


def wire(value: Ciphertext) -> Wire:
    return Wire(to_bytes(value), key_id=KEY, max_summands=16)


@pytest.mark.parametrize("polynomials", [1, 2])
def test_sum_from_the_wire_is_the_sum_from_memory(polynomials: int) -> None:
    blocks, seeds = 2 * CHUNK_BLOCKS + 1, polynomials == 1
    parts = [
        made(i, blocks=blocks, polynomials=polynomials, seeds=seeds) for i in range(3)
    ]
    running = RunningSum(KEY, max_summands=3)
    for part in parts:
        running.add(wire(part))
    assert same(running.total(), summed(*parts))


def test_adding_from_the_wire_leaves_the_wire_as_it_was() -> None:
    data = bytearray(to_bytes(made(1)))
    running = RunningSum(KEY, max_summands=3)
    running.add(Wire(data, key_id=KEY, max_summands=1))
    running.add(wire(made(2)))
    assert data == to_bytes(made(1))


def late(place: int) -> Ciphertext:
    """Return a summand that is good but for its last chunk."""
    bad = made(2, blocks=CHUNK_BLOCKS + 1)
    bad.residues[CHUNK_BLOCKS, 0, place] = Q
    return bad


@pytest.mark.parametrize("of", [wire, lambda value: value], ids=["wire", "memory"])
@pytest.mark.parametrize("place", [0, 15])
def test_a_residue_refused_in_the_last_chunk_left_the_first_untouched(
    of: Callable[[Ciphertext], Summand], place: int
) -> None:
    first = made(1, blocks=CHUNK_BLOCKS + 1)
    running = RunningSum(KEY, max_summands=3)
    running.add(first)
    with pytest.raises(VerificationError, match="not below q"):
        running.add(of(late(place)))
    assert same(running.total(), first)
    running.add(made(3, blocks=CHUNK_BLOCKS + 1))
    assert running.total().summands == 2


def test_what_was_checked_is_checked_again_once_something_else_was_added() -> None:
    running = RunningSum(KEY, max_summands=3)
    one, same_again = wire(made(1)), wire(made(1))
    running.check(one)
    running.check(same_again)
    running.add(one)
    with pytest.raises(VerificationError, match="repeats a seed"):
        running.add(same_again)


def test_a_checked_summand_is_added_once_only() -> None:
    running = RunningSum(KEY, max_summands=3)
    one = wire(made(1))
    running.check(one)
    running.add(one)
    with pytest.raises(VerificationError, match="repeats a seed"):
        running.add(one)


# --- seeds ----------------------------------------------------------------------------


def with_seeds(seed: int, *seeds: bytes) -> Ciphertext:
    value = made(seed, blocks=len(seeds))
    return Ciphertext(KEY, Q, value.residues, (b"".join(seeds),), 1)


def seed_of(begin: bytes, end: bytes) -> bytes:
    return begin + bytes(SEED_BYTES - len(begin) - len(end)) + end


def test_seeds_that_only_begin_alike_are_no_repeat() -> None:
    alike = [seed_of(b"12345678", bytes([i])) for i in range(4)]
    total = summed(with_seeds(1, *alike[:2]), with_seeds(2, *alike[2:]))
    assert total.seeds == (alike[0] + alike[1], alike[2] + alike[3])


@pytest.mark.parametrize("word", [bytes(8), b"\xff" * 8], ids=["zeros", "ones"])
def test_a_repeat_is_found_at_both_ends_of_the_order(word: bytes) -> None:
    one = seed_of(word, b"x")
    with pytest.raises(VerificationError, match="repeats a seed"):
        summed(with_seeds(1, one), with_seeds(2, one))


def test_a_seed_of_zeros_is_no_repeat_of_nothing() -> None:
    assert summed(with_seeds(1, bytes(SEED_BYTES))).summands == 1


@pytest.mark.parametrize("at", range(5))
def test_every_earlier_seed_is_remembered(at: int) -> None:
    earlier = [made(i, blocks=3) for i in range(5)]
    running = RunningSum(KEY, max_summands=16)
    for one in earlier:
        running.add(one)
    stolen = earlier[at].seeds[0][SEED_BYTES : 2 * SEED_BYTES]
    fresh = made(9, blocks=3).seeds[0]
    bad = with_seeds(9, fresh[:SEED_BYTES], fresh[SEED_BYTES : 2 * SEED_BYTES], stolen)
    with pytest.raises(VerificationError, match="repeats a seed"):
        running.add(bad)
