"""The bounds of the discrete path against plain sums over the lattice.

docs/adr/0005 has the argument; here is the second road: probabilities of every lattice
point, their ratio, and the divergence added up in the logarithm.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from fedsecure import moments
from fedsecure.moments import ORDERS, discrete_rdp, lattice_gap, sampled_rdp, summed_rdp

DELTA = 1e-5
Values = NDArray[np.float64]


def share(sigma: float, reach: int) -> Values:
    """Return log probabilities of one discrete Gaussian at -reach..reach."""
    x = np.arange(-reach, reach + 1)
    weight = -(x**2) / (2 * sigma**2)
    return np.asarray(weight - logsumexp(weight))


def added(one: Values, other: Values) -> Values:
    """Return log probabilities of the sum of two, without leaving the logarithm."""
    rows = one[:, None] + other[None, :]
    flipped = rows[:, ::-1]
    offsets = range(len(other) - 1, -len(one), -1)
    return np.array([logsumexp(flipped.diagonal(k)) for k in offsets])


def summed(shares: int, sigma: float, reach: int) -> Values:
    """Return log probabilities of a sum of shares; the centre is 0."""
    one = share(sigma, reach)
    total = one
    for _ in range(shares - 1):
        total = added(total, one)
    return total


def aligned(noise: Values, shift: int) -> tuple[Values, Values]:
    """Return noise moved by `shift` and noise, on the points where both are known."""
    return noise[: len(noise) - shift], noise[shift:]


def divergence(p: Values, q: Values, order: float) -> float:
    """Return the Renyi divergence of order `order` of exp(p) from exp(q)."""
    return float(logsumexp(order * p + (1 - order) * q) / (order - 1))


def mixed(p: Values, q: Values, rate: float) -> Values:
    return np.asarray(np.logaddexp(math.log1p(-rate) + q, math.log(rate) + p))


def bound(order: int, shift: float, shares: int, sigma: float, dim: int = 1) -> float:
    z = math.sqrt(shares) * sigma / shift
    gap = lattice_gap(shares, sigma)
    return float(summed_rdp(np.array([float(order)]), z, gap, dim)[0])


def sampled_bound(order: int, rate: float, z: float, gap: float, dim: int) -> float:
    every = np.arange(2, order + 1, dtype=np.float64)
    values = sampled_rdp(summed_rdp(every, z, gap, dim), rate, (order,))
    return float(values[0])


NOISES = [(n, sigma) for n in (1, 2, 3, 4) for sigma in (0.5, 0.7, 1.0, 1.5, 2.0)]


@pytest.mark.parametrize(("shares", "sigma"), NOISES)
def test_sum_of_shares_never_passes_proposition_14(shares: int, sigma: float) -> None:
    noise = summed(shares, sigma, 90)
    for shift in (1, 2, 3, 5):
        p, q = aligned(noise, shift)
        for order in (2, 3, 4, 8, 16):
            limit = bound(order, shift, shares, sigma)
            assert divergence(p, q, order) <= limit * (1 + 1e-9), (shift, order)


@pytest.mark.parametrize(("shares", "sigma"), NOISES)
def test_log_ratio_to_a_gaussian_varies_by_the_gap_at_most(
    shares: int, sigma: float
) -> None:
    # The lemma that the record cites: over a range that holds all but 1e-30 of it.
    noise = summed(shares, sigma, 90)
    x = np.arange(len(noise)) - (len(noise) - 1) // 2
    near = np.abs(x) <= 12 * sigma * math.sqrt(shares)
    ratio = (noise + x**2 / (2 * shares * sigma**2))[near]
    assert np.ptp(ratio) <= lattice_gap(shares, sigma) + 1e-10


def test_proposition_14_is_met_by_one_share() -> None:
    # One share is a discrete Gaussian itself; a shift on its lattice costs what the
    # continuous one costs, so a bound below this one would be wrong.
    p, q = aligned(share(1.0, 60), 2)
    assert divergence(p, q, 5.0) == pytest.approx(bound(5, 2, 1, 1.0), rel=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("shares", "sigma"), [(1, 1.0), (2, 0.7), (3, 0.5), (3, 2.0)])
def test_sampled_sum_never_passes_its_bound_in_either_direction(
    shares: int, sigma: float, rate: float
) -> None:
    noise, gap = summed(shares, sigma, 90), lattice_gap(shares, sigma)
    for shift in (1, 2, 4):
        p, q = aligned(noise, shift)
        m, z = mixed(p, q, rate), math.sqrt(shares) * sigma / shift
        for order in (2, 3, 5, 8, 16):
            limit = sampled_bound(order, rate, z, gap, 1) * (1 + 1e-9) + 1e-13
            forward, backward = divergence(m, q, order), divergence(q, m, order)
            assert backward <= forward + 1e-13
            assert forward <= limit, (shift, order)


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("shift", [(1, 1), (2, 1), (3, 0)])
def test_two_dimensions_never_pass_the_bound(
    shift: tuple[int, int], rate: float
) -> None:
    # Along an axis the second coordinate loses nothing; off it both do.
    noise, gap = summed(2, 0.7, 40), lattice_gap(2, 0.7)
    pairs = [aligned(noise, each) for each in shift]
    p, q = (np.add.outer(pairs[0][i], pairs[1][i]).ravel() for i in (0, 1))
    z = math.sqrt(2) * 0.7 / math.hypot(*shift)
    for order in (2, 3, 4, 8):
        if rate == 1:
            m, limit = p, float(summed_rdp(np.array([float(order)]), z, gap, 2)[0])
        else:
            m, limit = mixed(p, q, rate), sampled_bound(order, rate, z, gap, 2)
        assert max(divergence(m, q, order), divergence(q, m, order)) <= limit * (
            1 + 1e-9
        )


def test_sampled_bound_is_met_by_one_share() -> None:
    # The expansion is exact there: a term left out would show as a value below.
    p, q = aligned(share(1.5, 90), 1)
    exact = divergence(mixed(p, q, 0.2), q, 8)
    assert sampled_bound(8, 0.2, 1.5, 0.0, 1) == pytest.approx(exact, rel=1e-9)


@given(
    log_ratio=st.floats(-20, 20),
    rate=st.floats(1e-6, 1 - 1e-6),
    order=st.floats(1, 64),
)
def test_a_pair_of_reflected_points_never_favours_the_backward_direction(
    log_ratio: float, rate: float, order: float
) -> None:
    # phi(a) of the record, by log-sum-exp of its two sides.
    y = np.logaddexp(math.log1p(-rate), math.log(rate) + log_ratio)
    w = np.logaddexp(math.log1p(-rate), math.log(rate) - log_ratio)
    forward = np.logaddexp(order * y, log_ratio + order * w)
    backward = np.logaddexp((1 - order) * y, log_ratio + (1 - order) * w)
    assert forward >= backward - 1e-9 * max(1.0, abs(forward))


def zhu_wang(values: Values, rate: float) -> Values:
    """Return Zhu and Wang 2019, Thm 5, at `ORDERS`: the proven fallback."""
    ks = np.arange(2, max(ORDERS) + 1)
    found = []
    for order in ORDERS:
        k = ks[: order - 1]
        weight = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        weight += k * math.log(rate) + (order - k) * math.log1p(-rate)
        weight += (k - 1) * values[: order - 1] + np.where(k > 2, math.log(3), 0.0)
        first = (order - 1) * math.log1p(-rate) + math.log(order * rate - rate + 1)
        found.append(np.logaddexp(first, logsumexp(weight)) / (order - 1))
    return np.array(found)


def epsilon(values: Values, steps: int) -> float:
    """Return epsilon by Canonne, Kamath, Steinke 2020, Prop. 12, written out."""
    a = np.array(ORDERS)
    each = steps * values + np.log1p(-1 / a) - np.log(DELTA * a) / (a - 1)
    return float(each.min())


@pytest.mark.parametrize(
    ("rate", "z", "steps", "dearer"), [(0.01, 1.1, 10_000, 1.08), (0.2, 7.6, 100, 4.0)]
)
def test_fallback_is_never_below_and_costs_what_was_written_down(
    rate: float, z: float, steps: int, dearer: float
) -> None:
    every = np.arange(2, max(ORDERS) + 1, dtype=np.float64)
    values = summed_rdp(every, z, 0.0, 1)
    ours, theirs = sampled_rdp(values, rate, ORDERS), zhu_wang(values, rate)
    assert np.all(theirs >= ours * (1 - 1e-9))
    ratio = epsilon(theirs, steps) / epsilon(ours, steps)
    assert ratio == pytest.approx(dearer, rel=6e-3)


@pytest.mark.parametrize(("shares", "ratio"), [(2, 1.174), (10, 1.183)])
def test_one_grid_step_a_site_costs_eighteen_percent_of_the_divergence(
    shares: int, ratio: float
) -> None:
    # PRIVACY.md section 7: sigma 1, d 26,010, z = 1, against a/2 of a Gaussian. At the
    # greatest orders the other bound, which grows less, is the smaller one.
    values = discrete_rdp(1.0, 1.0, shares, 1.0, 26_010)
    low = np.array(ORDERS[:63])
    assert values[:63] / (low / 2) == pytest.approx(ratio, abs=5e-4)


@pytest.mark.parametrize("shares", [2, 10])
def test_two_grid_steps_a_site_cost_nothing_to_nine_digits(shares: int) -> None:
    values = discrete_rdp(1.0, 1.0, shares, 2.0, 26_010)
    assert values / (np.array(ORDERS) / 2) == pytest.approx(1.0, abs=1e-9)


def test_half_a_grid_step_a_site_is_useless() -> None:
    values = discrete_rdp(1.0, 1.0, 10, 0.5, 26_010)
    assert np.all(values / (np.array(ORDERS) / 2) > 100)


def test_the_smaller_bound_is_taken_at_every_order() -> None:
    orders = np.array([2.0, 1024.0])
    gap, z, d = lattice_gap(2, 1.0), 1.0, 26_010
    apart = orders / 2 + gap * d
    joint = orders / 2 * (1 + gap * math.sqrt(d)) ** 2
    assert apart[0] > joint[0]  # each of the two is the smaller one somewhere
    assert apart[1] < joint[1]
    assert list(summed_rdp(orders, z, gap, d)) == [joint[0], apart[1]]


@given(
    z=st.floats(0.3, 50),
    rate=st.floats(1e-6, 1 - 1e-9),
    shares=st.integers(1, 10),
    sigma=st.floats(0.5, 100),
)
def test_sampling_never_costs_more_than_none(
    z: float, rate: float, shares: int, sigma: float
) -> None:
    less = discrete_rdp(z, rate, shares, sigma, 100)
    more = discrete_rdp(z, 1.0, shares, sigma, 100)
    assert np.all(less >= 0)
    assert np.all(less <= more * (1 + 1e-9))


def test_a_tiny_rate_loses_no_digits() -> None:
    # The leading term of the divergence is a q^2 (e^(1/z^2) - 1)/2; at q = 1e-8 it is
    # 1e-16, which vanishes beside the 1 of the naive sum.
    value = discrete_rdp(1.0, 1e-8, 1, 100.0, 1)[0]
    assert value == pytest.approx(1e-16 * math.expm1(1.0), rel=1e-6)


def test_kept_values_cannot_be_changed_by_a_caller() -> None:
    values = discrete_rdp(1.0, 0.5, 2, 4.0, 10)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0.0
    assert moments.discrete_rdp(1.0, 0.5, 2, 4.0, 10)[0] > 0
