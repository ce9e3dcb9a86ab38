"""What ledgers charged, of one run and over all time."""

from collections.abc import Mapping
from dataclasses import replace

from fedsecure.accounting import PrivacyEvent
from fedsecure.certificate.spent import (
    all_time,
    counts_facts,
    epsilons,
    events_by_site,
    spending,
)
from fedsecure.certificate.traces import Traces
from fedsecure.ledger import Record
from fedsecure.privacy.plan import event_document
from fedsecure.update import JSON
from tests.fakes.certified import LOCAL, SHARED, plan
from tests.unit.privacy.test_promise import SHARED as EVENT


def line(run: str, event: Mapping[str, JSON]) -> Record:
    detail: dict[str, JSON] = {"event": {**event, "unit": "example"}}
    return Record(
        1, "", "", 0, "budget.reserve", "digits", "done", "", run, 1, detail, "", ""
    )


OF_RUN = line("run-1", event_document(EVENT))
BEFORE = line("run-0", event_document(LOCAL.event()))
TRACES = Traces(
    plan(),
    {"site-01": (OF_RUN, OF_RUN, BEFORE), "site-02": (), "agg-1": ()},
    frozenset({"site-01", "site-02"}),
    650,
)


def test_a_runs_events_are_its_own_and_equal_ones_are_one() -> None:
    found = events_by_site(TRACES)
    assert set(found) == {"site-01"}
    (event,) = found["site-01"]
    assert event.steps == 2 * EVENT.steps


def test_all_runs_of_a_data_set_are_spent_together() -> None:
    found = spending(TRACES, SHARED, "site-01", "digits")
    assert (found["runs"], found["reservations"]) == (2, 3)
    assert found["units"] == ["example"]
    alone = all_time(SHARED, [EVENT, EVENT])
    both = found["epsilons"]
    assert isinstance(both, list)
    for more, less in zip(both, alone, strict=True):
        assert isinstance(more, dict)
        assert isinstance(less, dict)
        assert float(str(more["epsilon"])) > float(str(less["epsilon"]))


def test_shared_noise_of_an_earlier_run_keeps_its_second_epsilon() -> None:
    assert len(all_time(LOCAL, [EVENT, LOCAL.event()])) == 2


def test_local_noise_alone_has_one() -> None:
    assert len(all_time(LOCAL, [LOCAL.event()])) == 1


def test_nothing_spent_is_nothing() -> None:
    assert spending(TRACES, SHARED, "site-02", "digits")["epsilons"] == []


COUNTING = plan(metrics="dp", counts={"noise_multiplier": 8.0, "each_round": True})
TOLD = PrivacyEvent.of_counts(8.0, 5)


def test_counts_are_stated_with_their_own_price_of_the_worst_off() -> None:
    by_site = {"site-01": [EVENT, TOLD], "site-02": [EVENT, replace(TOLD, steps=6)]}
    found = counts_facts(COUNTING, SHARED, by_site)
    assert isinstance(found, dict)
    assert (found["charged"], found["sensitivity"], found["draws"]) == (6, 1, 22)
    assert found["epsilons"] == epsilons(SHARED, {"site": [replace(TOLD, steps=6)]})


def test_a_plan_that_tells_no_counts_states_none() -> None:
    assert counts_facts(plan(), SHARED, {"site-01": [EVENT]}) is None
