"""Known answers of PRIVACY.md section 7, in the conversion of Canonne et al. 2020."""

import pytest

from fedsecure import registry
from fedsecure.accounting import PrivacyEvent, Relation

DELTA = 1e-5


def _epsilon(name: str, q: float, z: float, steps: int) -> float:
    accountant = registry.load("accounting", name).create(Relation.ADD_OR_REMOVE_ONE)
    accountant.compose(PrivacyEvent("poisson_gaussian", z, q, steps))
    return float(accountant.epsilon(DELTA))


@pytest.mark.parametrize(
    ("q", "z", "steps", "expected"),
    [
        (0.01, 1.1, 1_000, 1.7118),
        (0.01, 1.1, 10_000, 5.6320),
        (0.01, 4.0, 10_000, 1.0355),
        (0.01, 4.0, 40_000, 2.2097),
        (1.0, 10.0, 50, 3.1890),
        (0.1, 2.0, 300, 4.5643),
        (0.02, 0.5, 500, 20.19),
        (256 / 60_000, 1.1, 60 * 60_000 // 256, 2.5966),
        (256 / 60_000, 0.7, 45 * 60_000 // 256, 6.3195),
        (240 / 60_000, 0.7, 45 * 250, 6.0937),
        (240 / 60_000, 1.1, 60 * 250, 2.5029),
        (240 / 60_000, 1.3, 15 * 250, 0.9220),
    ],
)
def test_known_answers(q: float, z: float, steps: int, expected: float) -> None:
    assert _epsilon("rdp", q, z, steps) == pytest.approx(expected, rel=4e-4)


@pytest.mark.parametrize(
    ("q", "z", "steps"),
    [(0.01, 1.1, 1_000), (0.1, 2.0, 300), (1.0, 10.0, 50), (0.1, 8.0, 50)],
)
def test_guard_is_never_below_the_report(q: float, z: float, steps: int) -> None:
    assert _epsilon("rdp", q, z, steps) >= _epsilon("pld", q, z, steps)


def test_gaussian_of_dp_accountings_own_test_is_met() -> None:
    # rdp_privacy_accountant_test.py: sigma = 4.530877117 is (1, 1e-6) by RDP.
    accountant = registry.load("accounting", "rdp").create(Relation.ADD_OR_REMOVE_ONE)
    accountant.compose(PrivacyEvent("poisson_gaussian", 4.530877117, 1.0, 1))
    assert accountant.epsilon(1e-6) == pytest.approx(1.0, abs=1e-6)


def test_opacus_agrees_within_half_a_percent() -> None:
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent
    from opacus.accountants.rdp import RDPAccountant

    orders = RDPAccountant.DEFAULT_ALPHAS
    rdp = compute_rdp(q=0.01, noise_multiplier=1.1, steps=1_000, orders=orders)
    theirs, _ = get_privacy_spent(orders=orders, rdp=rdp, delta=DELTA)
    assert _epsilon("rdp", 0.01, 1.1, 1_000) == pytest.approx(theirs, rel=5e-3)


def test_replace_one_is_refused_even_without_sampling() -> None:
    accountant = registry.load("accounting", "rdp").create(Relation.REPLACE_ONE)
    assert not accountant.supports(PrivacyEvent("poisson_gaussian", 2.0, 1.0, 1))
