import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import DataError
from fedsecure.learning.split import held_out

fractions = st.floats(0, 0.99)
seeds = st.integers(0, 1000)


def _keys(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_the_same_seed_gives_the_same_rows() -> None:
    first = held_out(_keys(50), 0.2, seed=7)
    assert np.array_equal(first, held_out(_keys(50), 0.2, seed=7))


def test_another_seed_gives_other_rows() -> None:
    first = held_out(_keys(50), 0.2, seed=7)
    assert not np.array_equal(first, held_out(_keys(50), 0.2, seed=8))


def test_a_rows_place_follows_its_key_not_its_position() -> None:
    first = held_out(_keys(50), 0.2, seed=7)
    turned = held_out(_keys(50)[::-1], 0.2, seed=7)
    assert np.array_equal(first, turned[::-1])


@given(
    keys=st.lists(st.text(max_size=4), min_size=2, max_size=60, unique=True),
    gone=st.integers(0, 59),
    fraction=fractions,
    seed=seeds,
)
def test_a_row_that_goes_moves_no_other_across(
    keys: list[str], gone: int, fraction: float, seed: int
) -> None:
    """What epsilon rests on: neighbouring data differ by one row on one side."""
    rest = [key for i, key in enumerate(keys) if i != gone % len(keys)]
    try:
        whole = dict(zip(keys, held_out(keys, fraction, seed), strict=True))
        fewer = dict(zip(rest, held_out(rest, fraction, seed), strict=True))
    except DataError:
        return
    assert all(whole[key] == fewer[key] for key in rest)


def test_a_fraction_of_zero_tests_nothing() -> None:
    assert not held_out(_keys(9), 0.0, seed=7).any()


def test_rows_that_are_all_for_testing_are_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"all 2 rows .* choose a smaller fraction"):
        held_out(_keys(2), 0.999999, seed=7)


@given(
    keys=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60),
    fraction=st.floats(0, 0.9),
    seed=seeds,
)
def test_one_persons_rows_stay_together(
    keys: list[str], fraction: float, seed: int
) -> None:
    try:
        test = held_out(keys, fraction, seed)
    except DataError:
        return
    sides = {(key, bool(side)) for key, side in zip(keys, test, strict=True)}
    assert len(sides) == len(set(keys))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_share_is_the_fraction_up_to_chance(fraction: float) -> None:
    test = held_out(_keys(10_000), fraction, seed=7)
    deviation = (fraction * (1 - fraction) / 10_000) ** 0.5
    assert abs(test.mean() - fraction) < 4 * deviation
