import math
from bisect import bisect_left
from decimal import Decimal, localcontext
from itertools import accumulate

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.mechanism import (
    CLIP_SHRINK,
    MAX_SIGMA,
    DiscreteGaussian,
    Grid,
    clip_factors,
    noisy_sum,
    poisson_mask,
)
from tests.fakes.randomness import Script, Stream, System

KNOWN = [-5, 15, 8, 1, 5, -16, -9, 0]
"""Eight draws at sigma 10 from SHAKE-256 of "known"."""


def _pmf(sigma: float, k: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    """Return the discrete Gaussian's probabilities by another road: plain floats."""
    support = np.arange(-math.ceil(20 * sigma), math.ceil(20 * sigma) + 1)
    total = np.exp(-(support**2) / (2 * sigma**2)).sum()
    return list(np.exp(-(k**2) / (2 * sigma**2)) / total)


# --- the sampler ----------------------------------------------------------------------


def test_known_answers() -> None:
    # Made by this code; each is found again with 60-digit sums in the next test.
    drawn = DiscreteGaussian(10.0).draw(8, Stream("known"))
    assert drawn.tolist() == KNOWN


def test_known_answers_by_high_precision_sums() -> None:
    source = Stream("known")
    words = np.frombuffer(source.bytes(64), "<u8")
    signs = np.unpackbits(np.frombuffer(source.bytes(1), np.uint8))
    with localcontext() as context:
        context.prec = 60
        weights = [(-Decimal(k * k) / 200).exp() for k in range(141)]
        weights = [weights[0], *(2 * w for w in weights[1:])]
        total = sum(weights)
        expected = []
        for word, sign in zip(words, signs, strict=True):
            running, magnitude = weights[0], 0
            while running / total * 2**64 <= int(word):
                magnitude += 1
                running += weights[magnitude]
            expected.append(-magnitude if sign else magnitude)
    assert expected == KNOWN


def test_tie_with_a_threshold_asks_for_the_low_word() -> None:
    noise = DiscreteGaussian(10.0)
    word = int(noise._high[3]).to_bytes(8, "little")
    edge = int(noise._low[3])
    below = noise.draw(1, Script(word, (edge - 1).to_bytes(8, "little"), b"\x00"))
    at = noise.draw(1, Script(word, edge.to_bytes(8, "little"), b"\x00"))
    assert (below.item(), at.item()) == (3, 4)


def test_greatest_draw_is_the_end_of_the_tail() -> None:
    ones = b"\xff" * 8
    drawn = DiscreteGaussian(10.0).draw(1, Script(ones, ones, b"\x00"))
    assert drawn.item() == 140


def test_sign_bit_mirrors_the_draw() -> None:
    noise, word = DiscreteGaussian(10.0), (2**63).to_bytes(8, "little")
    plus = noise.draw(1, Script(word, b"\x00"))
    minus = noise.draw(1, Script(word, b"\x80"))
    assert plus.item() == -minus.item() > 0


@pytest.mark.parametrize("sigma", [2.0, 3.5, 10.0])
def test_draws_pass_chi_squared(sigma: float) -> None:
    draws = DiscreteGaussian(sigma).draw(200_000, Stream(f"chi {sigma}"))
    edge = math.ceil(3 * sigma)
    inner = np.arange(-edge, edge + 1)
    expected = np.array(_pmf(sigma, inner)) * len(draws)
    seen = np.array([np.count_nonzero(draws == k) for k in inner], dtype=np.float64)
    rest = len(draws) - expected.sum(), len(draws) - seen.sum()
    result = stats.chisquare([*seen, rest[1]], [*expected, rest[0]])
    assert result.pvalue > 1e-3


def test_chi_squared_would_see_a_sigma_off_by_three_percent() -> None:
    draws = DiscreteGaussian(10.3).draw(200_000, Stream("off"))
    inner = np.arange(-30, 31)
    expected = np.array(_pmf(10.0, inner)) * len(draws)
    seen = np.array([np.count_nonzero(draws == k) for k in inner], dtype=np.float64)
    rest = len(draws) - expected.sum(), len(draws) - seen.sum()
    assert stats.chisquare([*seen, rest[1]], [*expected, rest[0]]).pvalue < 1e-6


def test_wide_draws_look_normal() -> None:
    draws = DiscreteGaussian(20_000.0).draw(100_000, Stream("wide")) / 20_000.0
    assert stats.kstest(draws, "norm").pvalue > 1e-3


@pytest.mark.parametrize("sigma", [2.0, 10.0, 1_000.0])
def test_variance_is_sigma_squared(sigma: float) -> None:
    draws = DiscreteGaussian(sigma).draw(200_000, Stream(f"var {sigma}"))
    # The estimate's own deviation is sqrt(2/n) = 0.32%; four of them.
    assert draws.var() / sigma**2 == pytest.approx(1.0, abs=0.0127)


def test_system_generator_gives_other_noise_each_time() -> None:
    noise = DiscreteGaussian(1_000.0)
    assert noise.draw(64, System()).tolist() != noise.draw(64, System()).tolist()


@pytest.mark.parametrize("sigma", [0.0, 1.99, MAX_SIGMA * 1.01, float("nan")])
def test_sigma_the_table_cannot_hold_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigurationError, match="must be from 2 to 131072"):
        DiscreteGaussian(sigma)


# --- the table against numbers made another way ---------------------------------------


def _exact(sigma: float) -> list[int]:
    """Return floor(2**128 P(|X| <= k)) from 90-digit sums over all that is not nil."""
    with localcontext() as context:
        context.prec = 90
        width = 2 * Decimal(sigma) ** 2
        weights = [(-Decimal(k * k) / width).exp() for k in range(int(22 * sigma))]
        sums = list(accumulate([weights[0], *(2 * w for w in weights[1:])]))
        return [int(value / sums[-1] * 2**128) for value in sums]


def _kept(noise: DiscreteGaussian) -> list[int]:
    pairs = zip(noise._high, noise._low, strict=True)
    return [int(high) << 64 | int(low) for high, low in pairs]


@pytest.mark.parametrize("sigma", [2.0, 10.5, 300.0])
def test_thresholds_are_the_exact_integers(sigma: float) -> None:
    kept, exact = _kept(DiscreteGaussian(sigma)), _exact(sigma)
    # One unit: cut where the tail beyond 14 deviations, 2**-142, tips a floor.
    assert len(kept) == math.ceil(14 * sigma)
    assert max(abs(a - b) for a, b in zip(kept, exact, strict=False)) <= 1


@pytest.mark.parametrize("sigma", [2.0, 10.5, 300.0])
def test_a_draws_distance_is_within_the_bound_it_states(sigma: float) -> None:
    noise, exact = DiscreteGaussian(sigma), _exact(sigma)
    off = [abs(a - b) + 1 for a, b in zip(_kept(noise), exact, strict=False)]
    # Half the L1 distance of the laws is at most the sum over rows of their F's.
    assert sum(off) / 2**128 <= noise.distance + 2.0**-128
    assert noise.distance <= 2.0**-64


def _smooth(sigma: float, k: int) -> mpmath.mpf:
    """Return 2**128 P(|X| <= k) by Euler and Maclaurin; no sum, no recurrence."""
    s, x = mpmath.mpf(sigma), mpmath.mpf(k)
    edge = mpmath.exp(-x * x / (2 * s * s))
    total = s * mpmath.sqrt(2 * mpmath.pi)  # of all integers, to exp(-2 pi^2 s^2)
    # Odd derivatives of the density at k, by Hermite polynomials; B2/2! and on.
    t = x / s
    d1, d3 = -t, -(t**3 - 3 * t)
    d5, d7 = -(t**5 - 10 * t**3 + 15 * t), -(t**7 - 21 * t**5 + 105 * t**3 - 105 * t)
    slopes = d1 / 12 / s - d3 / 720 / s**3 + d5 / 30240 / s**5 - d7 / 1209600 / s**7
    inner = total * mpmath.erf(x / (s * mpmath.sqrt(2)))
    return (inner + edge + 2 * edge * slopes) / total * mpmath.mpf(2) ** 128


def test_thresholds_of_a_wide_table_agree_with_euler_and_maclaurin() -> None:
    sigma = 60_000.0
    noise = DiscreteGaussian(sigma)
    with mpmath.workdps(70):
        for row in [0, 1, 59_999, 60_000, 123_456, 300_000, 800_000]:
            kept = int(noise._high[row]) << 64 | int(noise._low[row])
            assert abs(mpmath.mpf(kept) + 0.5 - _smooth(sigma, row)) <= 1


@given(data=st.data(), sigma=st.sampled_from([2.0, 40.0, 1_000.0]))
def test_first_bits_find_the_row_that_a_search_finds(
    data: st.DataObject, sigma: float
) -> None:
    noise = DiscreteGaussian(sigma)
    near = st.tuples(
        st.sampled_from(noise._high.tolist()), st.sampled_from([-1, 1, 1 << 44])
    ).map(lambda pair: min(max(pair[0] + pair[1], 0), 2**64 - 1))
    words = data.draw(st.lists(st.integers(0, 2**64 - 1) | near, min_size=1))
    words = [word for word in words if word not in set(noise._high.tolist())]
    text = b"".join(word.to_bytes(8, "little") for word in words)
    drawn = noise.draw(len(words), Script(text, bytes(-(-len(words) // 8))))
    assert drawn.tolist() == [bisect_left(noise._high, word) for word in words]


# --- the Poisson sample ---------------------------------------------------------------


def test_sample_takes_its_share() -> None:
    mask = poisson_mask(100_000, 0.1, Stream("share"))
    # Deviation sqrt(n q (1-q)) = 95; four of them.
    assert abs(np.count_nonzero(mask) - 10_000) < 380


def test_samples_are_independent_of_each_other() -> None:
    source = Stream("independent")
    first, second = (poisson_mask(100_000, 0.5, source) for _ in range(2))
    assert abs(np.count_nonzero(first == second) - 50_000) < 4 * 158


def test_rate_one_takes_everybody() -> None:
    assert poisson_mask(1_000, 1.0, Stream("all")).all()


def test_sample_may_be_empty() -> None:
    assert not poisson_mask(3, 1e-9, Stream("none")).any()


@pytest.mark.parametrize(
    ("word", "taken"), [(2**62 - 1, True), (2**62, False), (0, True)]
)
def test_sample_decides_at_exactly_q(word: int, taken: bool) -> None:
    mask = poisson_mask(1, 0.25, Script(word.to_bytes(8, "little")))
    assert bool(mask.item()) is taken


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_rate_outside_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="sample_rate="):
        poisson_mask(10, rate, Stream("bad"))


# --- clipping -------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20), st.floats(1e-9, 1e9))
def test_no_example_counts_more_than_the_shrunk_clip_norm(
    norms: list[float], clip: float
) -> None:
    values = np.array(norms)
    assert (clip_factors(values, clip) * values <= clip * CLIP_SHRINK * 1.0000001).all()


def test_short_gradients_are_left_alone() -> None:
    assert clip_factors(np.array([0.0, 0.5, 0.99]), 1.0).tolist() == [1.0, 1.0, 1.0]


def test_long_gradients_are_scaled_to_the_bound() -> None:
    assert clip_factors(np.array([4.0]), 2.0).item() == 2.0 * CLIP_SHRINK / 4.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_counts_as_nothing(bad: float) -> None:
    assert clip_factors(np.array([bad, 0.5]), 1.0).tolist() == [0.0, 1.0]


# --- the grid -------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [1, 650, 26_010, 1_199_882])
@pytest.mark.parametrize("z", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("clip", [1e-3, 1.0, 30.0])
def test_noise_is_never_below_z_times_the_sensitivity(
    parameters: int, z: float, clip: float
) -> None:
    grid = Grid.choose(clip, z, parameters)
    # Both sides in exact integers: floats are ratios, sqrt(d) is bounded by squares.
    rounding = grid.sensitivity - grid.steps * clip
    assert rounding**2 >= parameters * (1 - 1e-9)
    assert grid.sigma >= z * grid.sensitivity
    assert grid.sigma <= MAX_SIGMA


def test_noise_is_that_of_the_multiplier_and_two_steps_more() -> None:
    grid = Grid.choose(1.0, 0.5, 4)
    spread = 0.5 * grid.sensitivity
    assert math.sqrt(grid.sigma**2 - spread**2) == pytest.approx(2.0)


@pytest.mark.parametrize("parameters", [1, 650, 26_010])
def test_rounding_costs_two_percent_at_most(parameters: int) -> None:
    grid = Grid.choose(1.0, 1.0, parameters)
    assert 1.0 < grid.sensitivity / grid.steps <= 1.0201


def test_great_models_pay_more_noise_and_not_more_epsilon() -> None:
    grid = Grid.choose(1.0, 10.0, 1_199_882)
    assert grid.sensitivity / grid.steps > 1.1
    assert grid.sigma / grid.sensitivity == pytest.approx(10.0)


def test_model_too_great_for_the_table_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="train fewer parameters"):
        Grid.choose(1.0, 100.0, 10_000_000)


@given(
    st.lists(st.floats(-50, 50), min_size=5, max_size=5),
    st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)
def test_neighbouring_sums_stay_within_the_sensitivity(
    total: list[float], example: list[float]
) -> None:
    grid = Grid.choose(1.0, 1.0, 5)
    vector = np.array(example)
    vector *= clip_factors(np.array([np.linalg.norm(vector)]), 1.0)
    base = np.array(total)
    moved = grid.round(base + vector) - grid.round(base)
    assert np.linalg.norm(moved) <= grid.sensitivity


def test_sum_beyond_the_grid_is_clamped() -> None:
    grid = Grid.choose(1.0, 1.0, 1)
    assert grid.round(np.array([1e300])).item() == 2**52


# --- noise on a sum -------------------------------------------------------------------


def test_noised_sum_has_the_sum_as_mean_and_z_c_as_deviation() -> None:
    grid = Grid.choose(0.5, 2.0, 20_000)
    total = np.full(20_000, 3.0)
    noised = noisy_sum(total, grid, DiscreteGaussian(grid.sigma), Stream("sum"))
    assert noised.mean() == pytest.approx(3.0, abs=4 * 1.02 / math.sqrt(20_000))
    assert noised.std() == pytest.approx(grid.sigma / grid.steps, rel=0.02)
    assert 1.0 <= grid.sigma / grid.steps <= 1.0201


def test_noised_sum_lies_on_the_grid() -> None:
    grid = Grid.choose(1.0, 1.0, 50)
    total = np.linspace(-1, 1, 50)
    noised = noisy_sum(total, grid, DiscreteGaussian(grid.sigma), Stream("lattice"))
    assert (noised * grid.steps == np.rint(noised * grid.steps)).all()


def test_table_for_another_sigma_is_refused() -> None:
    grid = Grid.choose(1.0, 1.0, 50)
    with pytest.raises(ConfigurationError, match="the grid wants"):
        noisy_sum(np.zeros(50), grid, DiscreteGaussian(10.0), Stream("other"))
