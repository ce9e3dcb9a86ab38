import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.learning.split import held_out


def _keys(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_each_class_gives_its_share() -> None:
    classes = np.repeat([0, 1], [80, 20])
    test = held_out(classes, _keys(100), 0.25, seed=7)
    assert np.bincount(classes[test]).tolist() == [20, 5]


def test_the_same_seed_gives_the_same_rows() -> None:
    classes = np.arange(50) % 2
    first = held_out(classes, _keys(50), 0.2, seed=7)
    assert np.array_equal(first, held_out(classes, _keys(50), 0.2, seed=7))


def test_another_seed_gives_other_rows() -> None:
    classes = np.arange(50) % 2
    first = held_out(classes, _keys(50), 0.2, seed=7)
    assert not np.array_equal(first, held_out(classes, _keys(50), 0.2, seed=8))


def test_a_rows_place_follows_its_key_not_its_position() -> None:
    classes = np.zeros(50, dtype=np.int64)
    first = held_out(classes, _keys(50), 0.2, seed=7)
    turned = held_out(classes, _keys(50)[::-1], 0.2, seed=7)
    assert np.array_equal(first, turned[::-1])


def test_a_fraction_of_zero_tests_nothing() -> None:
    assert not held_out(np.zeros(9, dtype=np.int64), _keys(9), 0.0, seed=7).any()


def test_two_rows_give_one_for_testing() -> None:
    test = held_out(np.zeros(2, dtype=np.int64), _keys(2), 0.1, seed=7)
    assert test.sum() == 1


def test_one_row_is_for_training() -> None:
    assert not held_out(np.zeros(1, dtype=np.int64), ["a"], 0.9, seed=7).any()


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60
    ),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 1000),
)
def test_one_persons_rows_stay_together_and_training_is_never_empty(
    rows: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    classes = np.array([kind for kind, _ in rows], dtype=np.int64)
    keys = [str(person) for _, person in rows]
    test = held_out(classes, keys, fraction, seed)
    assert not test.all()
    for person in set(keys):
        assert (
            len({bool(t) for t, k in zip(test, keys, strict=True) if k == person}) == 1
        )


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_share_is_rounded_to_the_nearest(fraction: float) -> None:
    test = held_out(np.zeros(33, dtype=np.int64), _keys(33), fraction, seed=7)
    assert abs(test.sum() - 33 * fraction) <= 0.5
