"""Floats to integers and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import ConfigurationError, NotFinite, OverflowRisk
from fedsecure.quantiser import FixedPoint
from fedsecure.ranges import Ranges
from fedsecure.update import Vector


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


# --- ranges by tensor, slices ---------------------------------------------------------

LARGE = Ranges(1.0, (70_000, 70_003, 150_000), (0.25, 0.5, 2.0**-9))


def update_of(size: int, seed: int = 3) -> Vector:
    return np.random.default_rng(seed).normal(0, 0.2, size)


def test_each_tensor_is_quantised_to_its_own_range() -> None:
    fixed = FixedPoint(1.0, 8, 1).within(Ranges(1.0, (2, 3), (0.5, 0.25)))
    found = fixed.quantize(np.array([0.5, -0.25, 0.25, 1.0]))
    assert found.values.tolist() == [127, -64, 127, 127]
    assert found.saturated == 0
    np.testing.assert_allclose(
        fixed.dequantize(found.values), [0.5, -0.252, 0.25, 1], atol=1e-4
    )


def test_value_within_the_configured_range_and_beyond_its_tensor_s_is_counted() -> None:
    fixed = FixedPoint(1.0, 8, 1).within(Ranges(1.0, (2,), (0.5,)))
    found = fixed.quantize(np.array([0.6, -0.6, 0.6]))
    assert found.values.tolist() == [127, -127, 76]
    assert found.saturated == 2


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("chunk", [1_000, 65_536, 69_999])
def test_slices_make_the_integers_of_the_whole(chunk: int, seed: int | None) -> None:
    update, fixed = update_of(200_000), FixedPoint(1.0, 12, 16).within(LARGE)
    rng = None if seed is None else np.random.default_rng(seed)
    whole = fixed.quantize(update, rng=rng)
    rng = None if seed is None else np.random.default_rng(seed)
    found = [
        fixed.quantize(update[at : at + chunk], at, rng)
        for at in range(0, 200_000, chunk)
    ]
    np.testing.assert_array_equal(
        np.concatenate([part.values for part in found]), whole.values
    )
    assert sum(part.saturated for part in found) == whole.saturated > 0


def test_slices_stand_for_the_floats_of_the_whole() -> None:
    total, fixed = np.arange(200_000), FixedPoint(1.0, 12, 16).within(LARGE)
    whole = fixed.dequantize(total)
    parts = [
        fixed.dequantize(total[at : at + 9_999], at) for at in range(0, 200_000, 9_999)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_ranges_above_the_configured_one_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"value_range is 1\.0"):
        FixedPoint(1.0, 8, 1).within(Ranges(1.0, (3,), (2.0,)))
    with pytest.raises(ConfigurationError, match=r"value_range is 1\.0"):
        FixedPoint(1.0, 8, 1).within(Ranges(0.5))


# --- rounding by chance ---------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.9, -0.1234, 0.0, 0.001, 0.5, 0.777])
def test_rounding_by_chance_is_unbiased(value: float) -> None:
    fixed, count = FixedPoint(1.0, 5, 1), 200_000
    scaled = value * fixed.scale
    rng = np.random.default_rng(11)
    found = fixed.quantize(np.full(count, value), rng=rng).values
    fraction = scaled - np.floor(scaled)
    error = np.sqrt(fraction * (1 - fraction) / count)
    assert abs(found.mean() - scaled) <= 5 * error + 1e-12


def test_rounding_to_nearest_is_biased_where_chance_is_not() -> None:
    fixed = FixedPoint(1.0, 5, 1)
    found = fixed.quantize(np.full(1_000, 0.02)).values
    assert not found.any()


@given(
    values=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=40),
    bits=st.sampled_from([5, 8, 12, 20, 44]),
    seed=st.integers(0, 99),
)
def test_error_by_chance_is_below_one_step(
    values: list[float], bits: int, seed: int
) -> None:
    fixed, update = FixedPoint(3.0, bits, 1), np.array(values)
    found = fixed.quantize(update, rng=np.random.default_rng(seed)).values
    error = np.abs(fixed.dequantize(found) - update).max()
    assert error <= 1 / fixed.scale * (1 + 1e-6)


@given(
    clip=st.floats(1e-30, 1e30),
    bits=st.sampled_from([5, 12, 20, 44]),
    seed=st.integers(0, 99),
)
def test_no_integer_by_chance_is_beyond_its_bits(
    clip: float, bits: int, seed: int
) -> None:
    update = np.repeat([clip, -clip], 500)
    fixed = FixedPoint(clip, bits, 1)
    found = fixed.quantize(update, rng=np.random.default_rng(seed))
    assert np.abs(found.values).max() <= fixed.steps
    assert found.saturated == 0


def test_value_on_a_step_is_not_moved_by_chance() -> None:
    fixed = FixedPoint(127.0, 8, 1)
    update = np.tile(np.arange(-127.0, 128.0), 200)
    found = fixed.quantize(update, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(found.values, update)


def test_same_generator_state_makes_the_same_integers() -> None:
    update, fixed = update_of(5_000), FixedPoint(1.0, 8, 1)
    one, two = (fixed.quantize(update, rng=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_by_chance_too(bad: float) -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(NotFinite):
        FixedPoint(1.0, 8, 1).quantize(np.array([0.0, bad]), rng=rng)


# --- what is left, and weights --------------------------------------------------------


def test_residual_is_what_was_not_sent() -> None:
    fixed, update = FixedPoint(1.0, 8, 1), update_of(5_000)
    sent = fixed.quantize(update, rng=np.random.default_rng(2)).values
    left = fixed.residual(update, sent)
    np.testing.assert_allclose(left + fixed.dequantize(sent), update, atol=1e-15)


def test_residual_of_a_cut_value_is_at_most_its_range() -> None:
    fixed = FixedPoint(1.0, 8, 1).within(Ranges(1.0, (2,), (0.5,)))
    update = np.array([0.75, -9.0, 9.0])
    left = fixed.residual(update, fixed.quantize(update).values)
    np.testing.assert_allclose(left, [0.25, -0.5, 1.0], atol=1e-12)


def test_residual_of_slices_is_that_of_the_whole() -> None:
    fixed, update = FixedPoint(1.0, 8, 1).within(LARGE), update_of(200_000)
    sent = fixed.quantize(update).values
    parts = [
        fixed.residual(update[at : at + 9_999], sent[at : at + 9_999], at)
        for at in range(0, 200_000, 9_999)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), fixed.residual(update, sent))


@pytest.mark.parametrize("seed", [None, 8])
def test_what_was_sent_follows_what_was_meant_to_within_one_step(
    seed: int | None,
) -> None:
    fixed = FixedPoint(1.0, 8, 1)
    rng = None if seed is None else np.random.default_rng(seed)
    meant, sent, left = np.zeros(1_000), np.zeros(1_000), np.zeros(1_000)
    for number in range(60):
        update = update_of(1_000, number) / 2
        found = fixed.quantize(update + left, rng=rng)
        assert found.saturated == 0
        left = fixed.residual(update + left, found.values)
        meant += update
        sent += fixed.dequantize(found.values)
        assert np.abs(meant - sent).max() <= 1 / fixed.scale * (1 + 1e-9)


@given(st.floats(1e-9, 1.0), st.sampled_from([5, 8, 20]))
def test_weight_is_sent_exactly_and_is_never_zero(weight: float, bits: int) -> None:
    fixed = FixedPoint(0.3, bits, 1)
    share = fixed.share(weight)
    sent = fixed.quantize(np.array([share * fixed.clip]))
    assert sent.saturated == 0
    assert sent.values[0] == round(share * fixed.steps) >= 1
    most = max(0.5, 1 - weight * fixed.steps) / fixed.steps
    assert abs(share - weight) <= most + 1e-12
