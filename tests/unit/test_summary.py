"""Events counted into figures; each figure from the smallest history that moves it."""

import math

import pytest

from fedsecure.backends import Event, Outcome
from fedsecure.summary import Digest, digest, pooled, rounds_lost, updates_lost
from fedsecure.trainer import JSON

SITES: list[JSON] = ["a", "b"]
METRICS: JSON = {
    "a": {"accuracy": 0.5, "loss": 2.0, "num_test": 10, "saturated": 3},
    "b": {"accuracy": 1.0, "loss": 1.0, "num_test": 30, "saturated": 0},
}


def leader(now: float, term: int, holder: str) -> Event:
    return {
        "event": "leader",
        "now": now,
        "term": term,
        "holder": holder,
        "source": holder,
        "round": 0,
    }


def event(kind: str, now: float, number: int, **fields: JSON) -> Event:
    return {
        "event": kind,
        "now": now,
        "round": number,
        "term": 1,
        "source": "agg-1",
        **fields,
    }


def released(now: float, number: int, sites: list[JSON] | None = None) -> Event:
    return event(
        "released",
        now,
        number,
        participants=SITES if sites is None else sites,
        metrics=METRICS,
        received_bytes=4000,
        sent_bytes=8000,
    )


def update(now: float, number: int, site: str) -> Event:
    return event("update", now, number, site=site, bytes=10)


def history() -> list[Event]:
    """A run of three rounds whose leader is killed in the second."""
    return [
        leader(0.0, 1, "agg-1"),
        event("began", 1.0, 0, parameters=100),
        event("opened", 2.0, 1, cohort=SITES),
        update(3.0, 1, "a"),
        update(3.5, 1, "b"),
        released(4.0, 1),
        event("opened", 5.0, 2, cohort=SITES),
        update(6.0, 2, "a"),
        event("kill", 6.5, 2, victim="agg-1"),
        leader(7.5, 2, "agg-2"),
        event("standing", 7.6, 0, released=[1]),
        event("resumed", 8.0, 2, reused=["a"]),
        update(9.0, 2, "b"),
        released(10.0, 2),
        event("opened", 10.5, 3, cohort=SITES),
        released(12.0, 3),
        event("finished", 13.0, 3, metrics=METRICS),
    ]


def tables(events: list[Event], epsilons: tuple[float, ...] = ()) -> Digest:
    outcome = Outcome(tuple(events), {}, {"a": epsilons})
    return digest(outcome, {"rounds": 3})


def test_no_round_and_no_update_is_lost_in_a_good_run() -> None:
    totals = tables(history()).totals
    assert (totals["rounds_lost"], totals["updates_lost"]) == (0, 0)
    assert (totals["rounds_planned"], totals["rounds_completed"]) == (3, 3)


def test_round_released_twice_is_lost() -> None:
    assert rounds_lost([released(1.0, 1), released(2.0, 1)]) == 1


def test_round_missing_below_the_last_is_lost() -> None:
    assert rounds_lost([released(1.0, 1), released(2.0, 3)]) == 1


def test_skipped_round_is_not_lost() -> None:
    skip = event("skipped", 1.5, 2)
    assert rounds_lost([released(1.0, 1), skip, released(2.0, 3)]) == 0


def test_release_whose_leader_died_before_it_told_is_not_lost() -> None:
    found = event("standing", 1.5, 0, released=[1, 2])
    events = [released(1.0, 1), found, released(2.0, 3)]
    assert rounds_lost(events) == 0
    assert tables(events).totals["rounds_completed"] == 3


def test_accepted_update_outside_its_release_is_lost() -> None:
    events = [update(1.0, 1, "a"), update(1.0, 1, "b"), released(2.0, 1, ["a"])]
    assert updates_lost(events) == 1


def test_update_of_a_round_not_released_is_not_lost() -> None:
    assert updates_lost([update(1.0, 1, "a")]) == 0


def test_failover_tells_terms_seconds_and_what_was_reused() -> None:
    assert tables(history()).totals["failovers"] == [
        {
            "term_before": 1,
            "term_after": 2,
            "seconds_to_leader": 1.0,
            "seconds_to_next_round": 3.5,
            "updates_reused": 1,
            "updates_redone": 0,
        }
    ]


def test_update_taken_again_is_redone() -> None:
    events = [*history()[:12], update(8.5, 2, "a"), *history()[12:]]
    failovers = tables(events).totals["failovers"]
    assert isinstance(failovers, list)
    assert isinstance(failovers[0], dict)
    assert failovers[0]["updates_redone"] == 1


def test_leader_that_is_elected_again_is_no_failover() -> None:
    events = [leader(0.0, 1, "agg-1"), leader(1.0, 2, "agg-1"), released(2.0, 1)]
    assert tables(events).totals["failovers"] == []


def test_bytes_are_per_parameter_and_site() -> None:
    (first, *_) = tables(history()).rounds
    assert first["uplink_bytes_per_parameter"] == 20.0
    assert first["downlink_bytes_per_parameter"] == 40.0


def test_seconds_of_a_round_count_from_its_opening() -> None:
    rows = tables(history()).rounds
    assert [row["seconds"] for row in rows] == [2.0, 5.0, 1.5]


def test_metrics_are_weighted_by_test_rows() -> None:
    assert pooled(METRICS) == {"accuracy": pytest.approx(0.875), "loss": 1.25}


def test_sites_without_metrics_pool_to_nothing() -> None:
    assert pooled({"a": {}, "b": None}) == {}
    assert pooled(None) == {}


def test_final_metrics_are_those_of_the_end() -> None:
    assert tables(history()).totals["final"] == {"accuracy": 0.875, "loss": 1.25}


def test_run_that_did_not_finish_has_no_final_metrics() -> None:
    assert tables(history()[:-1]).totals["final"] == {"accuracy": None, "loss": None}


def test_epsilon_of_a_round_is_its_own_and_not_the_last() -> None:
    rows = tables(history(), (1.0, 1.5, 1.8)).rounds
    assert [row["epsilon"] for row in rows] == [{"a": 1.0}, {"a": 1.5}, {"a": 1.8}]


def test_empty_history_is_counted_too() -> None:
    totals = tables([]).totals
    assert (totals["rounds_completed"], totals["seconds"]) == (0, 0.0)


def test_timeline_holds_the_kill_between_its_rounds() -> None:
    marks = [(row["event"], row["name"]) for row in tables(history()).timeline]
    assert ("kill", "agg-1") in marks
    assert marks.index(("kill", "agg-1")) < marks.index(("leader", "agg-2"))


def noisy(correct: JSON, wrong: JSON, noise: JSON = 5.0) -> JSON:
    return {"noisy_correct": correct, "noisy_wrong": wrong, "noise": noise}


def test_noisy_counts_are_added_up_before_they_are_divided() -> None:
    found = pooled({"a": noisy(60, 10), "b": noisy(20, 10)})
    assert found["accuracy"] == pytest.approx(0.8)
    spread = 5 * math.sqrt(2) * math.hypot(0.2, 0.8) / 100
    assert found["accuracy_noise"] == pytest.approx(spread)


@pytest.mark.parametrize(
    ("correct", "wrong", "accuracy"), [(70, -9, 1.0), (-9, 70, 0.0), (71, 0, 1.0)]
)
def test_noise_below_zero_leaves_accuracy_between_zero_and_one(
    correct: int, wrong: int, accuracy: float
) -> None:
    assert pooled({"a": noisy(correct, wrong)})["accuracy"] == accuracy


def test_noise_below_zero_cancels_between_sites_first() -> None:
    found = pooled({"a": noisy(50, -4), "b": noisy(40, 14)})
    assert found["accuracy"] == pytest.approx(0.9)
    found = pooled({"a": noisy(-4, 50), "b": noisy(14, 40)})
    assert found["accuracy"] == pytest.approx(0.1)


@pytest.mark.parametrize(("correct", "wrong"), [(0, 0), (-3, -8), (-3, 0)])
def test_counts_of_no_rows_say_nothing(correct: int, wrong: int) -> None:
    assert pooled({"a": noisy(correct, wrong)}) == {}


@pytest.mark.parametrize("bad", [None, "7", True, math.nan, math.inf, [1]])
def test_counts_that_are_none_are_left_out(bad: JSON) -> None:
    assert pooled({"a": noisy(bad, 3), "b": noisy(8, 2)})["accuracy"] == 0.8
    assert pooled({"a": noisy(bad, 3)}) == {}


def test_the_final_accuracy_of_counts_has_its_noise_beside_it() -> None:
    events = [*history()[:-1], event("finished", 13.0, 3, metrics={"a": noisy(60, 20)})]
    final = tables(events).totals["final"]
    assert isinstance(final, dict)
    assert set(final) == {"accuracy", "loss", "accuracy_noise"}
    assert (final["accuracy"], final["loss"]) == (0.75, None)
