"""Flower's own protocol, its own strategy, and this house's figures."""

import inspect
import json
from typing import cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import (
    GaussianPrivacyEvent,
    Grid,
    NeighboringRelation,
    PrivacyAccountant,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedsecure.accounting import GAUSSIAN, PrivacyEvent, Relation, guarantee
from fedsecure.errors import ConfigurationError
from fedsecure.flower.accountant import FlowerAccountant

DELTA = 1e-5
EVENT = GaussianPrivacyEvent(2.0, 10, 100)


def config(
    sampling: SamplingMethod = SamplingMethod.NO_AMPLIFICATION,
    limit: float | None = None,
) -> PrivacyConfig:
    relation = NeighboringRelation.ADD_OR_REMOVE_ONE
    return PrivacyConfig(DELTA, 100, relation, sampling, limit)


def accountant(
    name: str = "pld",
    sampling: SamplingMethod = SamplingMethod.NO_AMPLIFICATION,
    limit: float | None = None,
) -> FlowerAccountant:
    return FlowerAccountant(config(sampling, limit), name)


def test_every_member_of_flowers_protocol_is_there() -> None:
    # mypy checks the types of this assignment, and this the names of the running flwr.
    ours: PrivacyAccountant = accountant()
    asked = {name for name in vars(PrivacyAccountant) if name[0] != "_"}
    assert len(asked) == 9
    assert all(hasattr(ours, name) for name in asked)


@pytest.mark.parametrize(
    "name", sorted(n for n in vars(PrivacyAccountant) if n[0] != "_")
)
def test_a_member_takes_and_returns_what_the_running_flwr_says(name: str) -> None:
    theirs, ours = getattr(PrivacyAccountant, name), getattr(FlowerAccountant, name)
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        theirs, ours = theirs.fget, ours.fget
    assert inspect.signature(ours) == inspect.signature(theirs)


def test_rdp_agrees_with_flowers_own_accountant() -> None:
    theirs = RdpAccountant(config(SamplingMethod.POISSON))
    ours = accountant("rdp", SamplingMethod.POISSON)
    for each in (theirs, ours):
        each.compose(EVENT, 300)
    assert ours.num_releases == theirs.num_releases == 300
    assert ours.get_epsilon(DELTA) == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-3)


def test_poisson_sampling_amplifies_and_no_amplification_does_not() -> None:
    spent = {}
    for sampling in (SamplingMethod.POISSON, SamplingMethod.NO_AMPLIFICATION):
        ours = accountant("rdp", sampling)
        ours.compose(EVENT)
        spent[sampling] = ours.get_epsilon(DELTA)
    event = PrivacyEvent(GAUSSIAN, 2.0, 1.0, 1)
    full = guarantee("rdp", Relation.ADD_OR_REMOVE_ONE, [event], DELTA).epsilon
    assert spent[SamplingMethod.NO_AMPLIFICATION] == full
    assert spent[SamplingMethod.POISSON] < full / 2


def test_pld_is_tighter_than_flowers_own_accountant() -> None:
    theirs, ours = RdpAccountant(config()), accountant()
    for each in (theirs, ours):
        each.compose(EVENT, 5)
    assert ours.get_epsilon(DELTA) < theirs.get_epsilon(DELTA)


def test_spending_says_how_and_under_which_relation() -> None:
    ours = accountant()
    ours.compose(EVENT, 3)
    spent = ours.get_privacy_spent()
    assert (spent.delta, spent.num_releases) == (DELTA, 3)
    assert spent.accounting_method == "pld, add_or_remove_one"
    assert spent.epsilon == ours.get_epsilon(DELTA)


def test_delta_is_the_inverse_of_epsilon_from_the_safe_side() -> None:
    ours = accountant()
    ours.compose(GaussianPrivacyEvent(1.0, 10, 100))
    # Balle and Wang 2018: delta of (epsilon 1, sigma 1).
    found = ours.get_delta(1.0)
    assert 0.1269367375 <= found <= 0.1269367375 * 1.011
    assert ours.get_epsilon(found) <= 1.0


def test_delta_of_nothing_is_as_good_as_none() -> None:
    assert accountant().get_delta(0.5) <= 1e-29


def test_delta_that_cannot_be_met_is_one() -> None:
    ours = accountant("rdp")
    ours.compose(GaussianPrivacyEvent(0.01, 10, 100))
    assert ours.get_delta(0.0) == 1.0


def test_looking_ahead_adds_nothing() -> None:
    ours = accountant(limit=3.0)
    ours.compose(EVENT)
    before = ours.get_epsilon(DELTA)
    assert not ours.would_exceed(EVENT)
    assert ours.would_exceed(EVENT, count=10)
    assert ours.would_exceed(EVENT, max_epsilon=2.5)
    assert (ours.num_releases, ours.get_epsilon(DELTA)) == (1, before)


def test_looking_ahead_without_a_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_epsilon=None"):
        accountant().would_exceed(EVENT)


def test_state_survives_json() -> None:
    ours, again = accountant(), accountant()
    ours.compose(EVENT, 3)
    again.load_state_dict(json.loads(json.dumps(ours.state_dict())))
    assert again.num_releases == 3
    assert again.get_epsilon(DELTA) == ours.get_epsilon(DELTA)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"accountant": "rdp"},
        {"config": {}},
        {"releases": [[2.0, 10]]},
        {"releases": [[2.0, 10, 0]]},
        {"releases": [[-2.0, 10, 1]]},
        {"releases": None},
    ],
)
def test_foreign_state_is_refused_and_changes_nothing(
    change: dict[str, object],
) -> None:
    ours = accountant()
    ours.compose(EVENT, 2)
    with pytest.raises(ConfigurationError):
        ours.load_state_dict({**ours.state_dict(), **change})
    assert ours.num_releases == 2


def test_sampling_without_replacement_is_refused_by_name() -> None:
    foreign = PrivacyConfig(
        DELTA, 100, NeighboringRelation.REPLACE_ONE, SamplingMethod.WITHOUT_REPLACEMENT
    )
    with pytest.raises(ConfigurationError, match="without-replacement"):
        FlowerAccountant(foreign)


@pytest.mark.parametrize("count", [0, -1, True, 1.5])
def test_count_that_is_none_is_refused(count: int) -> None:
    with pytest.raises(ConfigurationError, match="count"):
        accountant().compose(EVENT, count)


def test_event_of_another_population_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="population_size=50"):
        accountant().compose(GaussianPrivacyEvent(2.0, 10, 50))


def test_flowers_strategy_takes_it() -> None:
    ours = accountant(limit=3.0)
    strategy = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(), 2.0, 1.0, 10, accountant=ours
    )
    ours.compose(EVENT)
    assert strategy.privacy_spent() == ours.get_privacy_spent()


class TenLetters(FedAvg):
    """A strategy that asks ten clients, of whom nothing but their number counts."""

    def configure_train(self, *_: object) -> list[Message]:
        return [cast("Message", object())] * 10


def test_flowers_strategy_stops_before_a_release_that_this_accountant_refuses() -> None:
    ours = accountant(limit=3.0)
    strategy = DifferentialPrivacyServerSideFixedClipping(
        TenLetters(), 2.0, 1.0, 10, accountant=ours
    )
    arguments = ArrayRecord([np.zeros(1)]), ConfigRecord(), cast("Grid", None)
    assert len(list(strategy.configure_train(1, *arguments))) == 10
    while not ours.would_exceed(EVENT):
        ours.compose(EVENT)
    with pytest.raises(PrivacyBudgetExhausted, match="would exceed max_epsilon"):
        strategy.configure_train(2, *arguments)
