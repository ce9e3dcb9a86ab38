"""What a site tells of a model: nothing, noisy counts, or what it measured."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.errors import TrainingFailed
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.trainer import TrainingResult, TrainingTask
from tests.fakes.counts import NOISE, charges, counting
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import altered, code_of

ME, LAST = "site-2", 3
COUNTS = {"noisy_correct", "noisy_wrong", "noise"}


class Door:
    """One site, and a leader's letters to it before the first round."""

    def __init__(self, federation: Federation) -> None:
        self.federation, self.site = federation, federation.sites[ME]
        leader = federation.leader("agg-1")
        self.letters = Letters(leader, begin(leader, None))

    def letter(self, number: int = LAST, *, train: bool = False) -> bytes:
        return self.letters.request(ME, number, train=train)()

    def told(self, data: bytes) -> Mapping[str, Any] | None:
        """Return the metrics of the answer to a letter; None: it has none."""
        header = json.loads(parse(self.site.answer(data), MAX_BYTES).header)
        found: Mapping[str, Any] | None = header.get("metrics")
        return found


@pytest.fixture
def door() -> Door:
    return Door(counting())


def plan_with(metrics: str) -> Federation:
    federation = Federation()
    federation.plan["metrics"] = metrics
    federation.restate()
    return federation


@pytest.mark.parametrize(
    ("metrics", "left"), [("none", set()), ("plain", {"loss", "num_test"})]
)
def test_the_last_report_tells_what_the_plan_says(metrics: str, left: set[str]) -> None:
    door = Door(plan_with(metrics))
    assert set(door.told(door.letter()) or {}) == left


def test_an_update_without_metrics_has_no_such_field() -> None:
    door = Door(plan_with("none"))
    assert door.told(door.letter(1, train=True)) is None


def test_counts_and_their_noise_are_all_that_leaves(door: Door) -> None:
    told = door.told(door.letter())
    assert told is not None
    assert set(told) == COUNTS
    assert told["noise"] == NOISE


def test_an_update_tells_counts_where_every_round_does() -> None:
    door = Door(counting(each_round=True))
    assert set(door.told(door.letter(1, train=True)) or {}) == COUNTS


def test_an_update_tells_nothing_where_the_end_does(door: Door) -> None:
    assert door.told(door.letter(1, train=True)) is None


@pytest.mark.parametrize("number", [1, 2, 4, 9])
def test_only_the_round_after_the_last_tells_of_the_end(
    door: Door, number: int
) -> None:
    assert door.told(door.letter(number)) == {}
    assert charges(door.site, number) == []
    assert door.site.shelf().answer(number) is None


def test_the_charge_is_durable_before_a_test_row_is_read(door: Door) -> None:
    paid: list[int] = []
    door.site.trainer.before = lambda t: paid.append(
        len(charges(door.site, t.round.number))
    )
    door.site.answer(door.letter())
    assert paid == [1]


def test_the_same_request_gets_the_same_bytes(door: Door) -> None:
    letter = door.letter()
    assert door.site.answer(letter) == door.site.answer(letter)
    assert len(charges(door.site, LAST)) == 1


def test_the_same_request_gets_the_same_bytes_after_a_restart(door: Door) -> None:
    first = door.site.answer(door.letter())
    door.site.die()
    assert door.site.answer(door.letter()) == first
    assert len(charges(door.site, LAST)) == 1


def test_a_new_leader_gets_the_same_bytes(door: Door) -> None:
    first = door.site.answer(door.letter())
    later = altered(door.federation, door.letter(), header={"term": 7})
    assert door.site.answer(later) == first


def test_counts_of_another_model_are_refused_and_cost_nothing(door: Door) -> None:
    door.site.answer(door.letter())
    other = altered(door.federation, door.letter(), header={"input": "00" * 32})
    assert code_of(door.site.answer(other)) == "input_conflict"
    assert len(charges(door.site, LAST)) == 1


def test_a_round_that_was_trained_tells_no_counts(door: Door) -> None:
    door.site.answer(door.letter(LAST, train=True))
    assert code_of(door.site.answer(door.letter())) == "input_conflict"
    assert charges(door.site, LAST) == []


def test_a_budget_that_is_spent_tells_nothing_and_reads_nothing() -> None:
    federation = counting()
    federation.sites[ME].max_epsilon = 0.5
    read: list[TrainingTask] = []
    door = Door(federation)
    door.site.trainer.before = read.append
    assert code_of(door.site.answer(door.letter())) == "budget"
    assert read == []


def test_an_evaluation_that_fails_is_void_charged_and_may_be_tried_again(
    door: Door,
) -> None:
    def fail(task: TrainingTask) -> None:
        raise TrainingFailed(f"round {task.round.number}: no memory")

    door.site.trainer.before = fail
    assert code_of(door.site.answer(door.letter())) == TrainingFailed.code
    assert [r.action for r in door.site.records()][-1] == "budget.void"
    door.site.trainer.before = lambda _: None
    assert parse(door.site.answer(door.letter()), MAX_BYTES).kind == Kind.REPORT
    assert len(charges(door.site, LAST)) == 2


def test_what_an_app_tells_beside_stays_here_and_the_log_says_so(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = {"num_test": 10.0, "accuracy": 0.7, "patients": 41.0, "loss": 0.3}
    monkeypatch.setattr(
        door.site.trainer, "run", lambda _: TrainingResult(None, told, 0)
    )
    with caplog.at_level(logging.INFO):
        answer = door.site.answer(door.letter())
    assert b"patients" not in answer
    assert "loss, patients stay here" in caplog.text


def test_an_app_that_tells_no_counts_lets_noise_alone_leave(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = {"eval_acc": 0.93}
    monkeypatch.setattr(
        door.site.trainer, "run", lambda _: TrainingResult(None, told, 0)
    )
    assert set(door.told(door.letter()) or {}) == COUNTS
    assert "no row is counted, only noise leaves" in caplog.text


def test_counts_that_would_find_no_room_are_not_paid_for(door: Door) -> None:
    letter = door.letter()
    door.site.answer(door.letter(9))  # joined, and evaluates nothing yet
    door.site.store.left = 1
    assert code_of(door.site.answer(letter)) == "no_room"
    assert charges(door.site, LAST) == []
    door.site.store.left = 1 << 30
    assert set(door.told(letter) or {}) == COUNTS
