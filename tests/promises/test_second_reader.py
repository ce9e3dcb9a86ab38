"""The second reading of the privacy arguments: enumeration, exact fractions, mpmath.

docs/adr/0023 says what each check is for. Other roads than the first author's tests:
the hockey-stick divergence itself where they have moments of a Renyi divergence.
"""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import jtheta, mp, mpf, quad  # type: ignore[import-untyped]
from numpy.typing import NDArray

from fedsecure.accounting import GAUSSIAN, PrivacyEvent, Relation, guarantee
from fedsecure.moments import lattice_gap
from fedsecure.privacy import mechanism
from fedsecure.privacy.mechanism import SMOOTHING, DiscreteGaussian, Grid

ADD = Relation.ADD_OR_REMOVE_ONE
DELTA = 1e-5
Law = NDArray[np.float64]


# --- laws by enumeration --------------------------------------------------------------


def one(sigma: float, reach: int) -> Law:
    """Return the discrete Gaussian's probabilities at -reach..reach."""
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(weight / weight.sum())


def added(shares: int, sigma: float, reach: int) -> Law:
    """Return the law of a sum of shares, by plain convolution."""
    law = one(sigma, reach)
    for _ in range(shares - 1):
        law = np.convolve(law, one(sigma, reach))
    return law


def pair(noise: Law, shift: int, rate: float) -> tuple[Law, Law]:
    """Return laws with and without the example, on all points of either."""
    without = np.concatenate([noise, np.zeros(shift)])
    moved = np.concatenate([np.zeros(shift), noise])
    return (1 - rate) * without + rate * moved, without


def together(laws: Sequence[Law]) -> Law:
    """Return the joint law of independent parts, flat."""
    joint = laws[0]
    for law in laws[1:]:
        joint = np.multiply.outer(joint, law).ravel()
    return joint


def hockey_stick(p: Law, q: Law, epsilon: float) -> float:
    """Return the least delta at an epsilon, over both directions."""
    grown = math.exp(epsilon)
    return max(
        float(np.maximum(p - grown * q, 0).sum()),
        float(np.maximum(q - grown * p, 0).sum()),
    )


def claimed(event: PrivacyEvent, accountant: str = "rdp") -> float:
    return guarantee(accountant, ADD, [event], DELTA).epsilon


def shared(
    sigma: float, shares: int, shift: float, rate: float, steps: int, dimension: int = 1
) -> PrivacyEvent:
    z = math.sqrt(shares) * sigma / shift
    return PrivacyEvent.of_shares(z, rate, steps, shares, shift, dimension)


# --- 0005: sums of shares, sampled, composed ------------------------------------------

SHARED = [
    (2, 0.6, 1, 1.0, 1),
    (3, 0.7, 1, 0.3, 3),
    (3, 1.0, 2, 0.1, 3),
    (4, 0.5, 1, 0.5, 3),
    (4, 2.0, 3, 0.02, 2),
    (2, 1.5, 3, 1.0, 2),
]


@pytest.mark.parametrize(("shares", "sigma", "shift", "rate", "steps"), SHARED)
def test_delta_of_a_composed_sum_is_below_its_claim_by_direct_enumeration(
    shares: int, sigma: float, shift: int, rate: float, steps: int
) -> None:
    noise = added(shares, sigma, math.ceil(9 * sigma))
    p, q = pair(noise, shift, rate)
    epsilon = claimed(shared(sigma, shares, shift, rate, steps))
    joint = together([p] * steps), together([q] * steps)
    assert hockey_stick(*joint, epsilon) <= DELTA
    assert hockey_stick(*joint, epsilon / 3) > DELTA  # the claim is no empty one


@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("shift", [(1, 0), (1, 1), (2, 1)])
def test_two_coordinates_of_two_shares_are_below_their_claim(
    shift: tuple[int, int], rate: float
) -> None:
    # The example is in both coordinates or in neither: one coin for the vector.
    noise, length = added(2, 0.8, 9), math.hypot(*shift)
    pairs = [pair(noise, each, 1.0) for each in shift]
    moved, q = (np.multiply.outer(pairs[0][i], pairs[1][i]).ravel() for i in (0, 1))
    p = (1 - rate) * q + rate * moved
    epsilon = claimed(shared(0.8, 2, length, rate, 1, dimension=2))
    assert hockey_stick(p, q, epsilon) <= DELTA


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1.0, 1.5])
@pytest.mark.parametrize("shares", [2, 3, 5])
def test_the_lemma_behind_tau_follows_from_poisson_summation(
    shares: int, sigma: float
) -> None:
    # Adding share k+1 multiplies by a theta function, within 1 -+ gamma_k; their
    # logarithms add up to less than the constant that is charged.
    own = mpf(0)
    for k in range(1, shares):
        nome = mp.exp(-2 * mp.pi**2 * mpf(sigma) ** 2 * k / (k + 1))
        gamma = 2 * mp.nsum(lambda m, u=nome: u ** (m * m), [1, 30])
        own += mp.log((1 + gamma) / (1 - gamma))
    law = added(shares, sigma, math.ceil(11 * sigma))
    x = np.arange(len(law)) - len(law) // 2
    near = np.abs(x) <= 6 * sigma * math.sqrt(shares)
    ratio = np.log(law[near]) + x[near] ** 2 / (2 * shares * sigma**2)
    assert float(np.ptp(ratio)) <= float(own) * (1 + 1e-6) + 1e-9
    assert own <= lattice_gap(shares, sigma)


@given(
    r=st.fractions(Fraction(1, 40), Fraction(50), max_denominator=40),
    q=st.fractions(Fraction(1, 40), Fraction(39, 40), max_denominator=40),
    order=st.integers(2, 40),
)
def test_the_backward_direction_never_wins_in_exact_arithmetic(
    r: Fraction, q: Fraction, order: int
) -> None:
    y, w = 1 - q + q * r, 1 - q + q / r
    phi = y**order + r * w**order - y ** (1 - order) - r * w ** (1 - order)
    assert phi >= 0
    assert y + r * w == 1 + r
    assert y * w >= 1


# --- shares, drop-outs, colluders (PRIVACY.md section 4) ------------------------------


def test_what_colluders_know_shifts_the_sum_and_leaves_the_promised_shares() -> None:
    # Five sites, one lost (least 4), one of the four tells its share: three are left.
    sigma, known = 1.0, 2
    rest = added(3, sigma, 10)
    told = np.concatenate([np.zeros(known), rest])  # given the colluder's draw
    p, q = pair(told, 2, 1.0)
    epsilon = claimed(shared(sigma, 3, 2, 1.0, 1))
    assert hockey_stick(p, q, epsilon) <= DELTA


def test_a_sum_below_the_least_contributors_breaks_the_promise() -> None:
    p, q = pair(added(2, 1.0, 14), 2, 1.0)
    assert hockey_stick(p, q, claimed(shared(1.0, 3, 2, 1.0, 1))) > DELTA


def test_the_second_epsilon_holds_when_one_share_is_left() -> None:
    p, q = pair(one(1.0, 14), 2, 1.0)
    event = shared(1.0, 3, 2, 1.0, 1)
    assert hockey_stick(p, q, claimed(event.own_share())) <= DELTA
    assert hockey_stick(p, q, claimed(event)) > DELTA


def test_more_shares_than_counted_only_hide_more() -> None:
    three, five = (pair(added(n, 1.0, 10), 2, 0.3) for n in (3, 5))
    for epsilon in (0.1, 1.0, 3.0):
        assert hockey_stick(*five, epsilon) <= hockey_stick(*three, epsilon) + 1e-15


# --- 0014: sensitivity, exhaustively in few coordinates -------------------------------


def farthest(dimension: int, reach: Fraction, cells: int) -> float:
    """Return how far rounded points may part that are `reach` apart at most."""
    places = [Fraction(2 * i + 1, 2 * cells) for i in range(cells)]
    steps = range(-int(reach * cells), int(reach * cells) + 1)
    moves = [
        move
        for move in itertools.product(steps, repeat=dimension)
        if sum(m * m for m in move) <= (reach * cells) ** 2
    ]
    most = 0
    for start in itertools.product(places, repeat=dimension):
        for move in moves:
            ends = [a + Fraction(m, cells) for a, m in zip(start, move, strict=True)]
            parted = [round(b) - round(a) for a, b in zip(start, ends, strict=True)]
            most = max(most, sum(d * d for d in parted))
    return math.sqrt(most)


@pytest.mark.parametrize(
    ("dimension", "reach", "cells"),
    [(1, Fraction(5, 2), 16), (2, Fraction(3, 2), 6), (3, Fraction(1), 4)],
)
def test_no_two_rounded_sums_part_farther_than_d_in_exact_arithmetic(
    dimension: int, reach: Fraction, cells: int
) -> None:
    most = farthest(dimension, reach, cells)
    assert most <= reach + math.sqrt(dimension)
    assert most > reach  # so rounding does have to be paid for


# --- 0015: what is opened is a function of the sum ------------------------------------


def test_wrapping_into_a_field_never_tells_more_than_the_integers() -> None:
    p, q = pair(added(2, 2.0, 20), 3, 0.4)
    residues = np.arange(len(p)) % 8
    small, other = (
        np.array([law[residues == r].sum() for r in range(8)]) for law in (p, q)
    )
    for epsilon in (0.0, 0.3, 1.0, 2.0):
        whole = hockey_stick(p, q, epsilon)
        assert hockey_stick(small, other, epsilon) <= whole


# --- 0016: the sampler's law against theta functions ----------------------------------


def thresholds(sigma: float) -> list[int]:
    high, low = mechanism._thresholds(sigma)
    return [(int(h) << 64) + int(w) for h, w in zip(high, low, strict=True)]


@pytest.mark.parametrize("sigma", [2.0, 2.7182818, 17.5])
def test_a_draws_law_is_within_its_distance_of_the_exact_one(sigma: float) -> None:
    with mp.workdps(70):
        s = mpf(sigma)
        total = jtheta(3, 0, mp.exp(-1 / (2 * s * s)))
        cuts = [mpf(0), *(mpf(t) / mpf(2) ** 128 for t in thresholds(sigma)), mpf(1)]
        drawn = [b - a for a, b in itertools.pairwise(cuts)]
        exact = [
            (2 if k else 1) * mp.exp(-mpf(k * k) / (2 * s * s)) / total
            for k in range(len(drawn))
        ]
        tail = 1 - mp.fsum(exact)
        apart = mp.fsum(abs(a - b) for a, b in zip(drawn, exact, strict=True)) + tail
        assert apart / 2 <= DiscreteGaussian(sigma).distance
        assert apart / 2 > 0


# --- 0023: discrete noise of one site is a function of continuous noise ---------------


@pytest.mark.parametrize(("fine", "coarse"), [(0.5, 1.0), (0.6, 1.5)])
def test_a_randomly_rounded_gaussian_is_a_discrete_one_up_to_gamma(
    fine: float, coarse: float
) -> None:
    # X = N(0, coarse^2), rounded to k with weight exp(-(k - X)^2 / 2 fine^2).
    gamma = 2 * mp.nsum(lambda m: mp.exp(-2 * (mp.pi * fine * m) ** 2), [1, 20])
    sigma = mp.sqrt(mpf(fine) ** 2 + mpf(coarse) ** 2)
    total = jtheta(3, 0, mp.exp(-1 / (2 * sigma**2)))

    def density(x: mpf, k: int) -> mpf:
        weights = mp.fsum(
            mp.exp(-((j - x) ** 2) / (2 * fine**2)) for j in range(-12, 13)
        )
        return mp.npdf(x, 0, coarse) * mp.exp(-((k - x) ** 2) / (2 * fine**2)) / weights

    for k in (0, 1, 3):
        made = quad(lambda x, k=k: density(x, k), [-8, -2, 0, 2, 8])
        wanted = mp.exp(-mpf(k * k) / (2 * sigma**2)) / total
        most = mp.log((1 + gamma) / (1 - gamma))
        assert abs(mp.log(made / wanted)) <= most + mpf(10) ** -7


def test_the_smoothing_leaves_nothing_that_delta_could_notice() -> None:
    gamma = 2.001 * math.exp(-2 * (math.pi * SMOOTHING) ** 2)
    coordinates, steps = 1e9, 1e6
    assert 4 * gamma * coordinates * steps < 1e-17


LOCAL = [(0.02, 1.0, 1, 3.0), (0.02, 0.25, 2, 2.0), (0.05, 1.0, 1, 1.1)]


@pytest.mark.parametrize(("clip", "rate", "steps", "z"), LOCAL)
def test_local_noise_on_the_grid_is_within_what_continuous_noise_promises(
    clip: float, rate: float, steps: int, z: float
) -> None:
    grid = Grid.choose(clip, z, 1)
    noise = one(grid.sigma, math.ceil(7 * grid.sigma))
    p, q = pair(noise, math.floor(grid.sensitivity), rate)
    epsilon = claimed(PrivacyEvent(GAUSSIAN, z, rate, steps), "pld")
    assert hockey_stick(together([p] * steps), together([q] * steps), epsilon) <= DELTA


def normal_delta(epsilon: float, z: float) -> float:
    """Return delta of one continuous release (Balle and Wang 2018, Theorem 8)."""
    upper = math.erfc((epsilon * z - 1 / (2 * z)) / math.sqrt(2)) / 2
    lower = math.erfc((epsilon * z + 1 / (2 * z)) / math.sqrt(2)) / 2
    return upper - math.exp(epsilon) * lower


@pytest.mark.parametrize(("shift", "z", "epsilon"), [(5, 1.0, 6.0225), (2, 1.0, 5.863)])
def test_without_the_smoothing_a_coarse_grid_promised_too_much(
    shift: int, z: float, epsilon: float
) -> None:
    promised = normal_delta(epsilon, z)
    bare, smooth = z * shift, math.hypot(z * shift, SMOOTHING)
    deltas = [
        hockey_stick(*pair(one(sigma, math.ceil(14 * sigma)), shift, 1.0), epsilon)
        for sigma in (bare, smooth)
    ]
    assert deltas[0] > 1.05 * promised
    assert deltas[1] < promised


# --- 0023: replace-one, and parts of a unit -------------------------------------------


@pytest.mark.parametrize(
    ("rate", "z"), [(0.01, 1.1), (0.1, 1.0), (0.3, 2.0), (0.9, 1.0)]
)
def test_replace_one_is_valued_for_two_examples_on_opposite_sides(
    rate: float, z: float
) -> None:
    event = PrivacyEvent(GAUSSIAN, z, rate, 1)
    epsilon = guarantee("pld", Relation.REPLACE_ONE, [event], DELTA).epsilon
    x = np.linspace(-40, 40, 160_001)

    def law(centre: float) -> Law:
        with_it, without = (
            np.exp(-((x - c) ** 2) / (2 * z * z)) for c in (centre, 0.0)
        )
        return np.asarray((rate * with_it + (1 - rate) * without) / without.sum())

    for left, right in ((1.0, -1.0), (0.6, -1.0), (1.0, 0.2)):
        delta = hockey_stick(law(left), law(right), epsilon)
        assert delta <= DELTA * (1 + 1e-3)
    assert hockey_stick(law(1.0), law(-1.0), epsilon * 0.97) > DELTA


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_row_of_a_person_costs_more_than_the_person_and_is_charged_more(
    rate: float,
) -> None:
    # A person's vector turns round when one of two opposed rows goes: 2 D apart.
    sigma, shift = 1.5, 1
    noise = added(2, sigma, 16)
    without = np.concatenate([np.zeros(shift), noise, np.zeros(shift)])
    one_way, other = np.roll(without, shift), np.roll(without, -shift)
    p, q = ((1 - rate) * without + rate * moved for moved in (one_way, other))
    event = shared(sigma, 2, shift, rate, 1)
    # At rate 1 the person's price is too small; the part's price holds at each rate.
    if rate == 1:
        assert hockey_stick(p, q, claimed(event)) > DELTA
    assert hockey_stick(p, q, claimed(event.of_a_part())) <= DELTA
