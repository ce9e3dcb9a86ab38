"""Known answers of PRIVACY.md section 7 that a Poisson-sampled Gaussian can reach."""

import warnings

import pytest

from fedsecure import registry
from fedsecure.accounting import PrivacyEvent, Relation

DELTA = 1e-5
ADD, REPLACE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE


def _epsilon(
    q: float, z: float, steps: int, relation: Relation = ADD, delta: float = DELTA
) -> float:
    accountant = registry.load("accounting", "pld").create(relation)
    accountant.compose(PrivacyEvent("poisson_gaussian", z, q, steps))
    return float(accountant.epsilon(delta))


@pytest.mark.parametrize(
    ("q", "z", "steps", "expected"),
    [
        (0.01, 1.1, 1_000, 1.5154),
        (0.01, 1.1, 10_000, 5.1926),
        (0.01, 4.0, 10_000, 0.9470),
        (1.0, 10.0, 50, 2.9432),
        (0.1, 2.0, 300, 4.1833),
        (0.02, 0.5, 500, 17.57),
        (256 / 60_000, 1.1, 60 * 60_000 // 256, 2.3817),
        (256 / 60_000, 0.7, 45 * 60_000 // 256, 5.6394),
    ],
)
def test_known_answers(q: float, z: float, steps: int, expected: float) -> None:
    assert _epsilon(q, z, steps) == pytest.approx(expected, abs=6e-4 * expected)


@pytest.mark.parametrize(
    ("q", "z", "steps", "expected"),
    [(0.01, 1.1, 1_000, 2.478), (0.1, 2.0, 300, 8.33), (1.0, 2.0, 1, 4.3772)],
)
def test_replace_one_counts_twice_the_clip_norm(
    q: float, z: float, steps: int, expected: float
) -> None:
    assert _epsilon(q, z, steps, REPLACE) == pytest.approx(expected, rel=1e-3)


def test_analytic_gaussian_is_met() -> None:
    # Balle and Wang 2018: delta of (epsilon 1, sigma 1) is 0.1269367375.
    assert _epsilon(1.0, 1.0, 1, delta=0.1269367375) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize(
    ("q", "z", "steps"), [(0.01, 1.1, 1_000), (0.1, 2.0, 300), (0.02, 1.0, 500)]
)
def test_opacus_prv_is_above_by_its_own_error_at_most(
    q: float, z: float, steps: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Opacus' making, not of the tests'
        from opacus.accountants import PRVAccountant

        prv = PRVAccountant()
        prv.history = [(z, q, steps)]
        above = prv.get_epsilon(DELTA, eps_error=0.01) - _epsilon(q, z, steps)
    assert 0 <= above <= 0.015
