"""What every accountant promises, asked of every plug of the socket."""

import math

import numpy as np
import pytest

from fedsecure import registry
from fedsecure.accounting import Accountant, PrivacyEvent, Relation, Search
from fedsecure.errors import ConfigurationError

DELTA = 1e-5
STEP = PrivacyEvent("poisson_gaussian", 1.1, 0.01, 1000)


@pytest.fixture(params=registry.names("accounting"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _new(name: str, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Accountant:
    accountant: Accountant = registry.load("accounting", name).create(relation)
    return accountant


def _spend(name: str, *events: PrivacyEvent) -> float:
    accountant = _new(name)
    for event in events:
        accountant.compose(event)
    return accountant.epsilon(DELTA)


def test_nothing_composed_costs_nothing(name: str) -> None:
    assert _new(name).epsilon(DELTA) == 0.0


def test_more_steps_cost_more(name: str) -> None:
    longer = PrivacyEvent(STEP.kind, 1.1, 0.01, 2000)
    assert _spend(name, longer) > _spend(name, STEP) > 0


def test_more_noise_costs_less(name: str) -> None:
    louder = PrivacyEvent(STEP.kind, 2.2, 0.01, 1000)
    assert _spend(name, louder) < _spend(name, STEP)


def test_smaller_delta_costs_more(name: str) -> None:
    accountant = _new(name)
    accountant.compose(STEP)
    assert accountant.epsilon(1e-7) > accountant.epsilon(1e-5)


def test_two_halves_cost_the_whole(name: str) -> None:
    half = PrivacyEvent(STEP.kind, 1.1, 0.01, 500)
    assert _spend(name, half, half) == pytest.approx(_spend(name, STEP), rel=1e-3)


def test_asking_twice_gives_the_same_answer(name: str) -> None:
    accountant = _new(name)
    accountant.compose(STEP)
    assert accountant.epsilon(DELTA) == accountant.epsilon(DELTA)


def test_epsilon_is_never_below_the_truth(name: str) -> None:
    # One unsampled Gaussian step at sigma 1, delta of Balle and Wang 2018 at epsilon 1.
    accountant = _new(name)
    accountant.compose(PrivacyEvent("poisson_gaussian", 1.0, 1.0, 1))
    assert accountant.epsilon(0.1269367375) >= 1.0 - 1e-9


@pytest.mark.parametrize(
    "event",
    [
        PrivacyEvent("shuffled_gaussian", 1.0, 0.1, 1),
        PrivacyEvent("poisson_gaussian", 0.0, 0.1, 1),
        PrivacyEvent("poisson_gaussian", -1.0, 0.1, 1),
        PrivacyEvent("poisson_gaussian", float("nan"), 0.1, 1),
        PrivacyEvent("poisson_gaussian", float("inf"), 0.1, 1),
        PrivacyEvent("poisson_gaussian", 1.0, 0.0, 1),
        PrivacyEvent("poisson_gaussian", 1.0, 1.5, 1),
        PrivacyEvent("poisson_gaussian", 1.0, float("nan"), 1),
        PrivacyEvent("poisson_gaussian", 1.0, 0.1, 0),
        PrivacyEvent("poisson_gaussian", 1.0, 0.1, 1, 5, 10.0, 100),
        PrivacyEvent("poisson_discrete_gaussian", 1.0, 0.1, 1),
        PrivacyEvent("poisson_discrete_gaussian", 1.0, 0.1, 1, 5, 0.1, 100),
        PrivacyEvent("poisson_discrete_gaussian", 0.0, 0.1, 1, 5, 10.0, 100),
        PrivacyEvent("discrete_gaussian_counts", 8.0, 0.5, 1),
        PrivacyEvent("discrete_gaussian_counts", 1.9, 1.0, 1),
        PrivacyEvent("discrete_gaussian_counts", 8.0, 1.0, 1, 1, 8.0, 2),
        PrivacyEvent("discrete_gaussian_counts", float("nan"), 1.0, 1),
    ],
)
def test_event_it_cannot_value_is_refused(name: str, event: PrivacyEvent) -> None:
    accountant = _new(name)
    assert not accountant.supports(event)
    with pytest.raises(ConfigurationError, match=f"accounting={name} does not know"):
        accountant.compose(event)


def test_discrete_noise_never_costs_less_than_whole_orders_or_is_refused(
    name: str,
) -> None:
    # A plug without a proven bound for a sum on the lattice says no; the value is that
    # of the continuous Gaussian at whole orders, PRIVACY.md section 7.
    event = PrivacyEvent("poisson_discrete_gaussian", 1.1, 0.01, 1000, 5, 4.0, 1000)
    accountant = _new(name)
    if not accountant.supports(event):
        with pytest.raises(ConfigurationError, match="does not know"):
            accountant.compose(event)
        return
    accountant.compose(event)
    assert accountant.epsilon(DELTA) >= 1.7252


def test_search_costs_more_than_its_run_or_is_refused_by_name(name: str) -> None:
    accountant = registry.load("accounting", name).create(Relation.ADD_OR_REMOVE_ONE)
    refusal = ""
    try:
        accountant.compose_search(Search((STEP,), 10.0, 1.0))
    except ConfigurationError as refused:
        refusal = str(refused)
    if refusal:
        assert refusal.startswith(f"accounting={name} has no bound")
        assert accountant.epsilon(DELTA) == 0
    else:
        assert accountant.epsilon(DELTA) > _spend(name, STEP)


def test_refused_event_is_not_half_composed(name: str) -> None:
    accountant = _new(name)
    with pytest.raises(ConfigurationError):
        accountant.compose(PrivacyEvent("unheard_of", 1.0, 0.1, 1))
    assert accountant.epsilon(DELTA) == 0.0


@pytest.mark.parametrize("delta", [0.0, -1e-5, 1.0, float("nan")])
def test_delta_outside_zero_to_one_is_refused(name: str, delta: float) -> None:
    with pytest.raises(ConfigurationError, match="must lie between 0 and 1"):
        _new(name).epsilon(delta)


def test_replace_one_is_doubled_or_refused(name: str) -> None:
    # dp-accounting's RDP counts one clip norm there and its PLD two: the trap of
    # PRIVACY.md section 6. A plug must count two or say no.
    event = PrivacyEvent("poisson_gaussian", 2.0, 1.0, 1)
    accountant = _new(name, Relation.REPLACE_ONE)
    if not accountant.supports(event):
        return
    accountant.compose(event)
    assert accountant.epsilon(DELTA) >= 4.377


def _delta_of_one_count(sigma: float, epsilon: float, releases: int = 1) -> float:
    """Return delta of counts told so often, by sums over the lattice."""
    ks = np.arange(-80 * releases, 80 * releases + 1)
    weight = np.exp(-(ks.astype(float) ** 2) / (2 * sigma**2))
    law = weight / weight.sum()
    if releases == 1:
        other = np.roll(law, 1)
        return float(np.maximum(law - math.exp(epsilon) * other, 0).sum())
    grid = np.multiply.outer(law, law)
    other = np.multiply.outer(np.roll(law, 1), np.roll(law, 1))
    return float(np.maximum(grid - math.exp(epsilon) * other, 0).sum())


@pytest.mark.parametrize("releases", [1, 2])
@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_counts_never_cost_less_than_sums_over_the_lattice_say(
    name: str, sigma: float, releases: int
) -> None:
    accountant = _new(name)
    accountant.compose(PrivacyEvent.of_counts(sigma, releases))
    spent = accountant.epsilon(DELTA)
    assert _delta_of_one_count(sigma, spent, releases) <= DELTA
    assert _delta_of_one_count(sigma, 0.85 * spent, releases) > DELTA


def test_counts_beside_training_cost_more_than_either(name: str) -> None:
    counts = PrivacyEvent.of_counts(8.0, 1)
    both = _spend(name, STEP, counts)
    assert both > max(_spend(name, STEP), _spend(name, counts))


def test_counts_of_a_row_that_is_replaced_cost_two_shifts_or_are_refused(
    name: str,
) -> None:
    accountant = _new(name, Relation.REPLACE_ONE)
    counts = PrivacyEvent.of_counts(8.0, 1)
    if not accountant.supports(counts):
        return
    accountant.compose(counts)
    assert accountant.epsilon(DELTA) >= 0.999 * _spend(name, counts, counts)
