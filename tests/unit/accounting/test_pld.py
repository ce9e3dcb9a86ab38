"""Known answers of PRIVACY.md section 7 by privacy loss distributions, no conversion.

The epsilon of a distribution is read off its delta; RDP's two conversions are in
test_rdp.py.
"""

import math
import warnings

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation
from dp_accounting.pld import PLDAccountant
from scipy.stats import norm

from fedsecure import registry
from fedsecure.accounting import (
    DISCRETE,
    GAUSSIAN,
    PrivacyEvent,
    Relation,
    Search,
    guarantee,
)
from fedsecure.errors import ConfigurationError

DELTA = 1e-5
ADD, REPLACE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE
MNIST = 256 / 60_000
PASS = 60_000 / 256
DISCRETE_STEP = PrivacyEvent(DISCRETE, 2.0, 1.0, 1, 5, 10.0, 100)


def _epsilon(
    q: float, z: float, steps: int, relation: Relation = ADD, delta: float = DELTA
) -> float:
    event = PrivacyEvent(GAUSSIAN, z, q, steps)
    return guarantee("pld", relation, [event], delta).epsilon


@pytest.mark.parametrize(
    ("q", "z", "steps", "expected"),
    [
        (0.01, 1.1, 1_000, 1.5154),
        (0.01, 1.1, 10_000, 5.1926),
        (0.01, 4.0, 10_000, 0.9470),
        (1.0, 10.0, 50, 2.9432),
        (0.1, 2.0, 300, 4.1833),
        (0.02, 0.5, 500, 17.57),
        (MNIST, 1.1, int(60 * PASS), 2.3817),
        (MNIST, 0.7, int(45 * PASS), 5.6394),
    ],
)
def test_known_answers(q: float, z: float, steps: int, expected: float) -> None:
    # The tightness that issue 4 asks for: never above PLD(1e-4) + 0.002.
    tolerance = max(0.002, 5e-4 * expected)
    assert _epsilon(q, z, steps) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("q", "z", "steps", "expected"),
    [(0.01, 1.1, 1_000, 2.478), (0.1, 2.0, 300, 8.33), (1.0, 2.0, 1, 4.3772)],
)
def test_replace_one_counts_twice_the_clip_norm(
    q: float, z: float, steps: int, expected: float
) -> None:
    assert _epsilon(q, z, steps, REPLACE) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("missing", "expected"), [(0, 4.38), (1, 4.98), (2, 5.90), (3, 7.51), (4, 11.48)]
)
def test_missing_shares_of_five_cost_what_was_written_down(
    missing: int, expected: float
) -> None:
    # PRIVACY.md section 4: shares of fixed size 1/5, no quorum rule, z = 1, one step.
    assert _epsilon(1.0, math.sqrt((5 - missing) / 5), 1) == pytest.approx(
        expected, abs=6e-3
    )


@pytest.mark.parametrize(
    ("z", "sites", "expected"),
    [(1, 3, 8.4), (1, 5, 11.5), (1, 10, 17.9), (4, 3, 1.7), (4, 5, 2.3), (4, 10, 3.3)],
)
def test_noise_that_two_sums_share_costs_what_was_written_down(
    z: float, sites: int, expected: float
) -> None:
    # PRIVACY.md section 11: the difference of two sums leaves one site's own share.
    found = _epsilon(1.0, z / math.sqrt(sites), 1)
    assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        (NeighboringRelation.ADD_OR_REMOVE_ONE, 1.9931),
        (NeighboringRelation.REPLACE_ONE, 4.3772),
    ],
)
def test_trap_dp_accountings_pld_counts_two_clip_norms_under_replace_one(
    relation: NeighboringRelation, expected: float
) -> None:
    # Its RDP counts one: 2.1657 under both, pinned in test_rdp.py.
    theirs = PLDAccountant(relation, 1e-4)
    theirs.compose(GaussianDpEvent(2.0))
    assert theirs.get_epsilon(DELTA) == pytest.approx(expected, abs=2e-4)


def test_analytic_gaussian_is_met_to_ten_digits() -> None:
    # Balle and Wang 2018, Theorem 8, at epsilon 1 and sigma 1.
    exact = norm.cdf(-0.5) - math.e * norm.cdf(-1.5)
    accountant = registry.load("accounting", "pld").create(ADD)
    accountant.compose(PrivacyEvent(GAUSSIAN, 1.0, 1.0, 1))
    assert exact == pytest.approx(0.1269367375, abs=5e-11)
    assert accountant._inner.get_delta(1.0) == pytest.approx(exact, abs=5e-10)
    assert accountant.epsilon(exact) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize(("q", "z", "steps"), [(0.01, 1.1, 1_000), (0.1, 2.0, 300)])
def test_a_coarser_grid_is_above_and_near(q: float, z: float, steps: int) -> None:
    from dp_accounting import PoissonSampledDpEvent, SelfComposedDpEvent

    coarse = PLDAccountant(value_discretization_interval=1e-3)
    step = PoissonSampledDpEvent(q, GaussianDpEvent(z))
    coarse.compose(SelfComposedDpEvent(step, steps))
    fine = _epsilon(q, z, steps)
    assert fine - 1e-6 <= coarse.get_epsilon(DELTA) <= 1.05 * fine


def _above_by_prv(q: float, z: float, steps: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Opacus' making, not of the tests'
        from opacus.accountants import PRVAccountant

        prv = PRVAccountant()
        prv.history = [(z, q, steps)]
        theirs = prv.get_epsilon(DELTA, eps_error=0.01)
    return float(theirs) - _epsilon(q, z, steps)


@pytest.mark.parametrize(("q", "z", "steps"), [(0.1, 2.0, 300), (0.02, 1.0, 500)])
def test_opacus_prv_is_above_by_its_own_error_at_most(
    q: float, z: float, steps: int
) -> None:
    assert 0 <= _above_by_prv(q, z, steps) <= 0.015


@pytest.mark.parametrize(
    ("steps", "ours", "theirs"), [(1_000, 1.5154, 1.5255), (10_000, 5.1926, 5.2029)]
)
def test_known_answers_of_opacus_prv_are_met(
    steps: int, ours: float, theirs: float
) -> None:
    above = _above_by_prv(0.01, 1.1, steps)
    assert above == pytest.approx(theirs - ours, abs=2e-3)
    assert 0 <= above <= 0.015


@pytest.mark.reproduction
@pytest.mark.parametrize(
    ("q", "z", "steps"),
    [
        (0.01, 1.1, 10_000),
        (0.01, 4.0, 10_000),
        (0.02, 0.5, 500),
        (1.0, 10.0, 50),
        (MNIST, 1.1, int(60 * PASS)),
        (MNIST, 0.7, int(45 * PASS)),
        (240 / 60_000, 1.3, 15 * 250),
    ],
)
def test_opacus_prv_is_above_by_its_own_error_in_the_published_settings(
    q: float, z: float, steps: int
) -> None:
    assert 0 <= _above_by_prv(q, z, steps) <= 0.015


def test_discrete_noise_is_refused_with_the_way_to_show_it() -> None:
    accountant = registry.load("accounting", "pld").create(ADD)
    assert not accountant.supports(DISCRETE_STEP)
    with pytest.raises(
        ConfigurationError, match=r"no proven bound for discrete.*nominal"
    ):
        accountant.compose(DISCRETE_STEP)


def test_nominal_event_of_discrete_noise_is_known() -> None:
    accountant = registry.load("accounting", "pld").create(ADD)
    accountant.compose(DISCRETE_STEP.nominal())
    assert accountant.epsilon(DELTA) == pytest.approx(1.9931, abs=2e-4)


def test_search_is_refused_with_the_accountant_that_can() -> None:
    accountant = registry.load("accounting", "pld").create(ADD)
    with pytest.raises(ConfigurationError, match="use accounting=rdp"):
        accountant.compose_search(Search((DISCRETE_STEP,), 10.0, 1.0))


def test_counts_cost_about_what_a_gaussian_as_wide_costs() -> None:
    counts = guarantee("pld", ADD, [PrivacyEvent.of_counts(8.0, 5)], DELTA).epsilon
    assert counts == pytest.approx(_epsilon(1.0, 8.0, 5), rel=0.002)
