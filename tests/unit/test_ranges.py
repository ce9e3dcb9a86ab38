"""Ranges by tensor: agreed from what everybody knows, the same bits everywhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, NotFinite, VerificationError
from fedsecure.ranges import FLOOR, Ranges, read_ranges
from fedsecure.update import Layout, Vector

LAYOUT = Layout(("w", "b", "scale"), ((2, 3), (3,), ()))
BEFORE = np.linspace(-1, 1, 10)


def ranges_of(step: Vector, multiple: float = 4.0, cap: float = 1.0) -> Ranges:
    """Ranges after a step from zero, which is exact."""
    zero = np.zeros(10)
    return Ranges.from_aggregate(LAYOUT, zero, step, multiple, cap * FLOOR, cap)


def step(w: float, b: float, scale: float) -> Vector:
    made = np.zeros(10)
    made[[2, 8, 9]] = [w, b, scale]
    return made


def test_one_range_serves_everything() -> None:
    assert list(Ranges.uniform(0.5).pieces(7, 19)) == [(7, 19, 0.5)]


def test_range_is_a_power_of_two_above_a_multiple_of_the_last_step() -> None:
    assert ranges_of(step(0.1, -0.01, 0.03)).bounds == (0.5, 2**-4, 2**-3)


def test_power_of_two_is_not_rounded_up() -> None:
    assert ranges_of(step(2**-5, -(2**-9), 0.0)).bounds[:2] == (2**-3, 2**-7)


def test_tensor_that_did_not_move_has_the_configured_range() -> None:
    assert ranges_of(step(0.0, 0.01, 0.0), cap=0.7).bounds == (0.7, 2**-4, 0.7)


def test_range_is_never_above_the_configured_one() -> None:
    assert ranges_of(step(9.0, 1e300, 0.15), cap=0.7).bounds == (0.7, 0.7, 0.7)


def test_range_is_never_below_the_floor() -> None:
    assert ranges_of(step(1e-300, 5e-324, 1e-5)).bounds == (FLOOR, FLOOR, 2**-14)


def test_weight_behind_the_tensors_keeps_the_configured_range() -> None:
    made = ranges_of(step(0.1, 0.1, 0.01), cap=0.7)
    assert list(made.pieces(9, 11)) == [(9, 10, 2**-4), (10, 11, 0.7)]


@given(
    exponent=st.integers(-15, -3),
    share=st.floats(0.5, 1.0, exclude_min=True),
    multiple=st.floats(1.0, 8.0),
)
def test_range_is_less_than_twice_the_multiple(
    exponent: int, share: float, multiple: float
) -> None:
    largest = share * 2.0**exponent
    bound = ranges_of(step(largest, 0, 0), multiple, cap=2.0).bounds[0]
    assert math.frexp(bound)[0] == 0.5
    assert multiple * largest <= bound < 2 * multiple * largest


def test_step_is_the_difference_of_the_two_models() -> None:
    after = BEFORE + step(0.25, -0.125, 0.0625)
    made = Ranges.from_aggregate(LAYOUT, BEFORE, after, 1.0, FLOOR, 8.0)
    largest = np.abs(after - BEFORE)[[2, 8, 9]]
    for bound, moved in zip(made.bounds, largest, strict=True):
        assert moved <= bound < 2 * moved


def test_large_tensor_s_maximum_is_found_in_every_chunk() -> None:
    layout = Layout(("w",), ((200_000,),))
    for at in (0, 70_000, 199_999):
        after = np.zeros(200_000)
        after[at] = -0.25
        made = Ranges.from_aggregate(layout, np.zeros(200_000), after, 2, FLOOR, 1)
        assert made.bounds == (0.5,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_step_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(NotFinite):
        ranges_of(step(0.1, bad, 0.1))


@pytest.mark.parametrize("multiple", [0.99, 0.0, -1.0, float("nan"), float("inf")])
def test_multiple_below_one_is_refused(multiple: float) -> None:
    with pytest.raises(ConfigurationError, match="must be at least 1"):
        ranges_of(step(0.1, 0.1, 0.1), multiple)


def test_model_of_another_layout_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the layout wants"):
        Ranges.from_aggregate(LAYOUT, BEFORE, BEFORE[:-1], 2, FLOOR, 1)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_range_that_is_not_positive_and_finite_is_refused(bad: float) -> None:
    with pytest.raises(ConfigurationError, match="must be positive and finite"):
        Ranges(1.0, (4,), (bad,))
    with pytest.raises(ConfigurationError, match="must be positive and finite"):
        Ranges.uniform(bad)


@pytest.mark.parametrize("ends", [(4, 4), (4, 3), (0, 3), (3,)])
def test_ranges_that_are_not_one_for_each_tensor_are_refused(
    ends: tuple[int, ...],
) -> None:
    with pytest.raises(ConfigurationError, match="must be one each"):
        Ranges(1.0, ends, (0.5, 0.5))


@given(st.integers(0, 12), st.integers(0, 12))
def test_pieces_cover_a_slice_once_in_order(start: int, count: int) -> None:
    made = Ranges(1.0, (2, 3, 9), (0.25, 0.5, 0.125))
    found = [
        (at, bound)
        for low, high, bound in made.pieces(start, start + count)
        for at in range(low, high)
    ]
    whole = [0.25] * 2 + [0.5] + [0.125] * 6 + [1.0] * 20
    assert found == [(at, whole[at]) for at in range(start, start + count)]


def test_ranges_come_back_from_their_bytes() -> None:
    made = ranges_of(step(0.1, 1e-9, 0.0), cap=0.7)
    assert read_ranges(canonical(made.document())) == made


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"7", b'{"rest":1}', b"[" * 100_000, b"\xff"]
)
def test_bytes_that_are_no_ranges_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="ranges are not"):
        read_ranges(data)


def test_bytes_with_a_range_that_is_not_positive_are_refused() -> None:
    good = Ranges(1.0, (4,), (0.5,)).document()
    with pytest.raises(VerificationError, match="ranges are not"):
        read_ranges(canonical({**good, "bounds": [-0.5]}))
