"""Floats to integers and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import ConfigurationError, NotFinite, OverflowRisk
from fedsecure.quantiser import FixedPoint


def test_one_bit_more_than_fits_is_refused() -> None:
    FixedPoint(1.0, 20, 16).check(24)
    with pytest.raises(OverflowRisk, match="a field of 24 bits holds 8388607"):
        FixedPoint(1.0, 21, 16).check(24)


def test_one_site_more_than_fits_is_refused() -> None:
    FixedPoint(1.0, 4, 18).check(8)
    with pytest.raises(OverflowRisk):
        FixedPoint(1.0, 4, 19).check(8)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf")])
def test_range_that_is_not_positive_and_finite_is_refused(clip: float) -> None:
    with pytest.raises(ConfigurationError, match="must be positive and finite"):
        FixedPoint(clip, 20, 16)


def test_rounding_is_to_the_nearest_step() -> None:
    fixed = FixedPoint(127.0, 8, 1)
    found = fixed.quantize(np.array([0.4, 0.6, -0.4, -0.6, 126.51]))
    assert found.values.tolist() == [0, 1, 0, -1, 127]


def test_values_beyond_the_range_are_cut_and_counted() -> None:
    fixed = FixedPoint(1.0, 8, 1)
    found = fixed.quantize(np.array([-9.0, -1.0, 0.0, 1.0, 1.0001, 2.0]))
    assert found.values.tolist() == [-127, -127, 0, 127, 127, 127]
    assert found.saturated == 3


def test_quantising_leaves_the_update_as_it_was() -> None:
    update = np.array([-9.0, 0.3])
    FixedPoint(1.0, 8, 1).quantize(update)
    assert update.tolist() == [-9.0, 0.3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_update_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(NotFinite):
        FixedPoint(1.0, 8, 1).quantize(np.array([0.0, bad]))


@given(
    values=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=40),
    bits=st.sampled_from([5, 8, 12, 20, 44]),
)
def test_error_is_at_most_half_a_step(values: list[float], bits: int) -> None:
    fixed = FixedPoint(3.0, bits, 1)
    update = np.array(values)
    back = fixed.dequantize(fixed.quantize(update).values)
    assert np.abs(back - update).max() <= 0.5 / fixed.scale * (1 + 1e-6)


@given(st.floats(1e-30, 1e30), st.sampled_from([5, 12, 20, 44]))
def test_no_integer_is_beyond_its_bits(clip: float, bits: int) -> None:
    found = FixedPoint(clip, bits, 1).quantize(np.array([clip, -clip]))
    assert found.values.tolist() == [(1 << (bits - 1)) - 1, 1 - (1 << (bits - 1))]
    assert found.saturated == 0


def test_an_update_of_many_chunks_is_quantised_and_counted_in_all() -> None:
    update = np.zeros(200_000)
    update[[3, 70_000, 199_999]] = [9.0, 1.0, -9.0]
    found = FixedPoint(1.0, 8, 1).quantize(update)
    assert np.flatnonzero(found.values).tolist() == [3, 70_000, 199_999]
    assert found.values[199_999] == -127
    assert found.saturated == 2


def test_nan_in_the_last_chunk_is_refused() -> None:
    update = np.zeros(200_000)
    update[-1] = float("nan")
    with pytest.raises(NotFinite):
        FixedPoint(1.0, 8, 1).quantize(update)
