"""Events as values, equal ones merged, and an epsilon that says what it is about."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure import registry
from fedsecure.accounting import (
    DISCRETE,
    GAUSSIAN,
    PrivacyEvent,
    Relation,
    Search,
    composed,
    enforced_with,
    grouped,
    guarantee,
    nominal,
)
from fedsecure.errors import ConfigurationError

DELTA = 1e-5
ADD = Relation.ADD_OR_REMOVE_ONE
LOCAL = PrivacyEvent(GAUSSIAN, 8.0, 1.0, 10)
TOLD = PrivacyEvent.of_counts(8.0, 3)
INSIDE = PrivacyEvent(DISCRETE, 6.0, 1.0, 40, 4, 30.0, 650)


def test_an_event_of_before_the_discrete_path_is_the_same_value() -> None:
    assert PrivacyEvent(GAUSSIAN, 1.1, 0.1, 10, 0, 0.0, 0) == PrivacyEvent(
        GAUSSIAN, 1.1, 0.1, 10
    )


def test_sensitivity_is_all_counted_noise_over_the_multiplier() -> None:
    assert INSIDE.sensitivity() == pytest.approx(2 * 30.0 / 6.0)


def test_nominal_event_keeps_multiplier_rate_and_steps_alone() -> None:
    assert INSIDE.nominal() == PrivacyEvent(GAUSSIAN, 6.0, 1.0, 40)


def test_shares_that_add_up_have_the_sensitivity_they_were_made_for() -> None:
    event = PrivacyEvent.of_shares(6.0, 1.0, 40, 4, 10.0, 650)
    assert event == INSIDE
    assert event.sensitivity() == pytest.approx(10.0)


def test_own_share_keeps_sensitivity_and_share_and_counts_nothing_else() -> None:
    alone = INSIDE.own_share()
    assert alone.sensitivity() == pytest.approx(INSIDE.sensitivity())
    assert alone.share_sigma == INSIDE.share_sigma
    assert alone.noise_multiplier == pytest.approx(INSIDE.noise_multiplier / 2)


@pytest.mark.parametrize(
    ("z", "first", "second"),
    [(25.588, 1.0, (1.7, 2.0, 2.2)), (9.448, 3.0, (5.2, 6.2, 7.0))],
)
def test_second_epsilon_of_forty_rounds(
    z: float, first: float, second: tuple[float, ...]
) -> None:
    # PRIVACY.md section 4, T 40, q 1: calibrated by RDP; nominal PLD of what is left
    # when all other sites of h = 3, 4, 5 put together what they know.
    run = PrivacyEvent(GAUSSIAN, z, 1.0, 40)
    assert guarantee("rdp", ADD, [run], DELTA).epsilon == pytest.approx(first, rel=1e-3)
    found = [
        nominal(
            ADD,
            [PrivacyEvent.of_shares(z, 1.0, 40, shares, 100.0, 650).own_share()],
            DELTA,
        ).epsilon
        for shares in (3, 4, 5)
    ]
    assert found == pytest.approx(second, abs=0.05)


@pytest.mark.parametrize(
    ("events", "name"),
    [([], "pld"), ([LOCAL], "pld"), ([INSIDE], "rdp"), ([LOCAL, INSIDE], "rdp")],
)
def test_discrete_noise_is_enforced_with_rdp(
    events: list[PrivacyEvent], name: str
) -> None:
    assert enforced_with(events) == name
    assert guarantee(name, ADD, events, DELTA).accountant == name


@pytest.mark.parametrize(
    ("events", "name"),
    [([TOLD], "pld"), ([LOCAL, TOLD], "pld"), ([INSIDE, TOLD], "rdp")],
)
def test_counts_are_enforced_with_what_they_stand_beside(
    events: list[PrivacyEvent], name: str
) -> None:
    assert enforced_with(events) == name
    assert guarantee(name, ADD, events, DELTA).epsilon > 0


def test_counts_have_no_share_to_lose_and_stay_what_they_are() -> None:
    assert TOLD.nominal() == TOLD
    assert TOLD.is_counts()
    assert not TOLD.is_gaussian()
    assert not TOLD.is_discrete()


def test_equal_events_are_merged() -> None:
    assert grouped([LOCAL, INSIDE, LOCAL, INSIDE]) == [
        replace(INSIDE, steps=80),
        replace(LOCAL, steps=20),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"counted_shares": 5},
        {"share_sigma": 31.0},
        {"dimension": 651},
        {"noise_multiplier": 6.1},
        {"sample_rate": 0.9},
    ],
)
def test_events_that_differ_in_one_number_stay_apart(change: dict[str, float]) -> None:
    other = replace(INSIDE, **change)  # type: ignore[arg-type]
    assert len(grouped([INSIDE, other])) == 2


@given(st.lists(st.sampled_from([LOCAL, INSIDE, replace(INSIDE, dimension=7)])))
def test_merging_keeps_every_step(events: list[PrivacyEvent]) -> None:
    assert sum(e.steps for e in grouped(events)) == sum(e.steps for e in events)


@pytest.mark.parametrize("name", registry.names("accounting"))
def test_merged_events_cost_what_they_cost_one_by_one(name: str) -> None:
    accountant = registry.load("accounting", name).create(ADD)
    for _ in range(4):
        accountant.compose(LOCAL)
    merged = composed(name, ADD, [LOCAL] * 4)
    assert merged.epsilon(DELTA) == pytest.approx(accountant.epsilon(DELTA), rel=2e-3)


def test_many_equal_events_are_composed_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 10,000 reservations of one plan are one segment for the accountant.
    plug = registry.load("accounting", "rdp")
    seen: list[PrivacyEvent] = []
    compose = plug._Rdp.compose

    def counted(self: object, event: PrivacyEvent) -> None:
        seen.append(event)
        compose(self, event)

    monkeypatch.setattr(plug._Rdp, "compose", counted)
    composed("rdp", ADD, [replace(LOCAL, steps=1)] * 10_000)
    assert [event.steps for event in seen] == [10_000]


def test_modes_runs_and_data_sets_compose_in_one_list() -> None:
    # z 8 ten times and z 6 forty times, both unsampled: sum of 1/z^2 is what counts.
    both = guarantee("rdp", ADD, [LOCAL, INSIDE], DELTA).epsilon
    rate = 10 / 64 + 40 / 36
    one = PrivacyEvent(DISCRETE, 1 / math.sqrt(rate), 1.0, 1, 4, 30.0, 650)
    assert both == pytest.approx(guarantee("rdp", ADD, [one], DELTA).epsilon, rel=1e-9)


def test_composition_does_not_depend_on_the_order() -> None:
    there = guarantee("rdp", ADD, [LOCAL, INSIDE, LOCAL], DELTA)
    back = guarantee("rdp", ADD, [INSIDE, LOCAL, LOCAL], DELTA)
    assert there == back


def test_a_search_adds_to_everything_else() -> None:
    search = Search((LOCAL,), 5.0, 1.0)
    alone = guarantee("rdp", ADD, [search], DELTA).epsilon
    with_run = guarantee("rdp", ADD, [search, INSIDE], DELTA).epsilon
    assert with_run > max(alone, guarantee("rdp", ADD, [INSIDE], DELTA).epsilon)


def test_trials_of_a_federation_cost_more_than_a_search_nobody_watched() -> None:
    trials = guarantee("rdp", ADD, [LOCAL] * 20, DELTA).epsilon
    assert guarantee("rdp", ADD, [Search((LOCAL,), 20.0, 1.0)], DELTA).epsilon < trials


@pytest.mark.parametrize("name", registry.names("accounting"))
@pytest.mark.parametrize("relation", list(Relation))
def test_the_relation_travels_with_every_epsilon(name: str, relation: Relation) -> None:
    if not registry.load("accounting", name).create(relation).supports(LOCAL):
        with pytest.raises(ConfigurationError, match=str(relation)):
            guarantee(name, relation, [LOCAL], DELTA)
        return
    found = guarantee(name, relation, [LOCAL], DELTA)
    assert found.relation is relation
    assert str(relation).replace("_", "-") in str(found)


def test_a_guarantee_reads_as_one_line_with_all_it_depends_on() -> None:
    found = replace(guarantee("rdp", ADD, [INSIDE], DELTA), epsilon=1.23456)
    assert str(found) == "ε 1.235 at δ 1e-05, add-or-remove-one (rdp)"


def test_nothing_spent_costs_nothing() -> None:
    assert guarantee("pld", ADD, [], DELTA).epsilon == 0


def test_nominal_is_below_the_bound_and_says_that_it_is_nominal() -> None:
    shown, bound = (
        nominal(ADD, [INSIDE], DELTA),
        guarantee("rdp", ADD, [INSIDE], DELTA),
    )
    assert shown.nominal
    assert not bound.nominal
    assert 0.8 * bound.epsilon < shown.epsilon < bound.epsilon
    assert "nominal pld" in str(shown)


def test_nominal_of_continuous_noise_alone_is_a_bound() -> None:
    found = nominal(ADD, [LOCAL], DELTA)
    assert found == guarantee("pld", ADD, [LOCAL], DELTA)


def test_unknown_accountant_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="no plug named 'gdp'"):
        guarantee("gdp", ADD, [LOCAL], DELTA)
