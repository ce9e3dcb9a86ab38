"""Known answers, oracles and coverage of an audit's statistics."""

import math

import numpy as np
import pytest
from scipy import stats

from fedsecure.audit.bounds import (
    auc_interval,
    clopper_pearson_upper,
    gaussian_delta,
    gaussian_epsilon,
    one_run_epsilon,
    one_run_p_value,
    separation_bound,
)


def test_delta_of_a_gaussian_is_the_published_one() -> None:
    """Balle and Wang 2018, PRIVACY.md section 7."""
    assert gaussian_delta(1.0, 1.0) == pytest.approx(0.1269367375, abs=1e-10)


def test_sigma_of_a_target_is_the_known_one() -> None:
    """dp-accounting's test of the analytic Gaussian; by RDP it is 4.530877117."""
    assert gaussian_epsilon(1 / 4.224678889, 1e-6) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize(("mu", "epsilon"), [(1.0, 4.377178), (0.0, 0.0), (1e-9, 0.0)])
def test_epsilon_of_one_step(mu: float, epsilon: float) -> None:
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=1e-6)


def test_a_rate_never_seen_is_bounded_by_the_rule_of_minus_log() -> None:
    found = clopper_pearson_upper(np.array([0.0]), 1000, 0.95)
    assert found == pytest.approx(1 - 0.05 ** (1 / 1000))


def test_a_rate_always_seen_is_not_bounded() -> None:
    assert clopper_pearson_upper(np.array([10.0]), 10, 0.95) == 1


@pytest.mark.parametrize("hits", [0, 3, 50])
def test_clopper_pearson_leaves_as_few_hits_the_probability_it_names(hits: int) -> None:
    bound = clopper_pearson_upper(np.array([1.0 * hits]), 200, 0.999)
    assert stats.binom.cdf(hits, 200, bound) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("mu", "low", "high"),
    [(1.0, 3.94, 4.25), (1 / math.sqrt(0.8), 4.6, 4.9), (1.25, 5.2, 5.6)],
)
def test_simulated_trials_prove_what_the_notes_say(
    mu: float, low: float, high: float
) -> None:
    """PRIVACY.md section 16: 4.02 to 4.17, 4.67 to 4.86, 5.33 to 5.45."""
    rng = np.random.default_rng(3)
    without, within = rng.normal(0, 1, 65_520), rng.normal(mu, 1, 65_520)
    assert low < gaussian_epsilon(separation_bound(without, within), 1e-5) < high


def test_a_bound_is_beyond_the_truth_less_often_than_it_says() -> None:
    rng = np.random.default_rng(5)
    beyond = sum(
        separation_bound(rng.normal(0, 1, 400), rng.normal(1, 1, 400), 0.9) > 1
        for _ in range(150)
    )
    assert beyond <= 15 + 3 * math.sqrt(150 * 0.1 * 0.9)


def test_worlds_that_do_not_differ_prove_nothing() -> None:
    rng = np.random.default_rng(5)
    assert separation_bound(rng.normal(0, 1, 4000), rng.normal(0, 1, 4000)) == 0


def test_the_half_that_chose_the_threshold_is_not_the_one_that_judges() -> None:
    rng = np.random.default_rng(6)
    without, within = rng.normal(0, 1, 4000), rng.normal(0, 1, 4000)
    within[::2] += 5
    assert separation_bound(without, within) < 0.5


def test_worlds_of_constants_prove_much_and_raise_nothing() -> None:
    assert separation_bound(np.zeros(10_000), np.ones(10_000)) > 5


def reference(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Return the p-value as Steinke, Nasr and Jagielski write it in appendix D."""
    q = 1 / (1 + math.exp(-epsilon))
    beta = stats.binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return min(float(beta + alpha * delta * 2 * m), 1.0)


@pytest.mark.parametrize("right", [0, 40, 55, 80, 100])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_one_run_is_valued_as_in_the_paper(right: int, epsilon: float) -> None:
    ours = one_run_p_value(400, 100, right, epsilon, 1e-5)
    assert ours == pytest.approx(reference(400, 100, right, epsilon, 1e-5))


def test_guesses_that_are_all_right_prove_the_epsilon_of_their_number() -> None:
    q = 0.001 ** (1 / 100)
    found = one_run_epsilon(100, 100, 100, 0.0, 0.999)
    assert found == pytest.approx(math.log(q / (1 - q)), abs=1e-4)


def test_guesses_that_are_half_right_prove_nothing() -> None:
    assert one_run_epsilon(400, 100, 50, 1e-5, 0.999) == 0


@pytest.mark.parametrize("numbers", [(10, 11, 5), (10, 5, 6), (10, 5, -1)])
def test_more_guesses_than_canaries_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="correct of"):
        one_run_epsilon(*numbers, 1e-5, 0.999)


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    members = rng.integers(0, 9, 40).astype(np.float64)
    others = rng.integers(0, 7, 30).astype(np.float64)
    pairs = members[:, None] - others[None, :]
    share = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert auc_interval(members, others, 0.95)[0] == pytest.approx(float(share))


def test_the_interval_of_the_area_holds_it_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(2), float(stats.norm.cdf(1 / math.sqrt(2)))
    held = 0
    for _ in range(200):
        found = auc_interval(rng.normal(1, 1, 80), rng.normal(0, 1, 90), 0.9)
        held += found[1] <= truth <= found[2]
    assert 180 - 3 * math.sqrt(18) <= held <= 180 + 3 * math.sqrt(18)
