"""A SuperLink that is silent, a round that stands still, and neither falsely."""

import threading
from collections.abc import Iterator

import pytest

from fedsecure.flower import vitals as module
from fedsecure.flower.vitals import SILENCE, SILENCE_TTLS, STEP, Vitals
from tests.fakes.clock import FakeClock

TTL = 1.0
TURN = 0.25


class Case:
    """An aggregator's vitals on a clock that a test moves; no thread asks."""

    def __init__(self, ttl: float = TTL) -> None:
        self.clock, self.told = FakeClock(), list[str]()
        self.vitals = Vitals(ttl, self.clock, self.told.append)

    def turns(self, seconds: float, *, answers: bool, steps: bool) -> str:
        """Let the campaign look, four times a second; return the last finding."""
        found = ""
        for _ in range(round(seconds / TURN)):
            self.clock.jump(TURN)
            if answers:
                self.vitals._answers.moved()
            if steps:
                self.vitals.step()
            found = self.vitals.ailment()
        return found


@pytest.fixture
def case() -> Case:
    return Case()


def test_aggregator_that_is_answered_and_makes_steps_is_well(case: Case) -> None:
    assert case.turns(3 * STEP, answers=True, steps=True) == ""
    assert case.told == []


def test_silent_superlink_is_an_ailment_after_its_limit(case: Case) -> None:
    assert case.turns(SILENCE, answers=False, steps=True) == ""
    found = case.turns(TURN, answers=False, steps=True)
    assert found == "its SuperLink has not answered for 15 s"


def test_long_lease_gives_a_superlink_several_leases(case: Case) -> None:
    patient = Case(ttl=60.0)
    limit = SILENCE_TTLS * 60.0
    assert patient.turns(limit, answers=False, steps=True) == ""
    assert patient.turns(TURN, answers=False, steps=True) != ""


def test_round_that_stands_still_is_an_ailment_after_its_limit(case: Case) -> None:
    assert case.turns(STEP, answers=True, steps=False) == ""
    found = case.turns(TURN, answers=True, steps=False)
    assert found == "its round made no step for 600 s"
    assert case.vitals.stuck


def test_silent_superlink_is_no_stuck_round(case: Case) -> None:
    case.turns(2 * SILENCE, answers=False, steps=True)
    assert not case.vitals.stuck


def test_ailment_is_told_once_and_its_end_once(case: Case) -> None:
    case.turns(3 * SILENCE, answers=False, steps=True)
    case.turns(3 * SILENCE, answers=True, steps=True)
    assert case.told == ["its SuperLink has not answered for 15 s", ""]


def test_machine_that_slept_is_not_unwell_when_it_wakes(case: Case) -> None:
    case.turns(TURN, answers=True, steps=True)
    case.clock.jump(8 * 3600.0)
    assert case.vitals.ailment() == ""


def test_processor_that_was_held_by_others_is_no_silence(case: Case) -> None:
    """Twenty seconds in which neither the asking nor the looking thread ran."""
    for _ in range(5):
        case.clock.jump(20.0)
        assert case.vitals.ailment() == ""
        case.vitals._answers.moved()


# --- the thread that asks -------------------------------------------------------------


class SuperLink:
    """Answers, raises or blocks, as a test says."""

    def __init__(self) -> None:
        self.open, self.asked = threading.Event(), threading.Semaphore(0)
        self.error: Exception | None = None

    def ask(self) -> object:
        self.asked.release()
        self.open.wait(30)
        if self.error is not None:
            raise self.error
        return []


@pytest.fixture
def superlink(case: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperLink]:
    monkeypatch.setattr(module, "_EVERY", 0.0)
    made = SuperLink()
    case.vitals.watch(made.ask)
    yield made
    case.vitals.rest()
    made.open.set()


def ailment(case: Case) -> str:
    return case.turns(2 * SILENCE, answers=False, steps=True)


def asked(superlink: SuperLink, times: int) -> None:
    for _ in range(times):
        assert superlink.asked.acquire(timeout=10)


def test_question_that_blocks_for_ever_is_silence_and_holds_nobody(
    case: Case, superlink: SuperLink
) -> None:
    asked(superlink, 1)
    assert ailment(case) == "its SuperLink has not answered for 15 s"


def test_answer_makes_it_well_again(case: Case, superlink: SuperLink) -> None:
    asked(superlink, 1)
    assert ailment(case) != ""
    superlink.open.set()
    asked(superlink, 2)  # so one has been answered
    assert case.vitals.ailment() == ""


def test_refusal_is_no_answer_and_is_named(case: Case, superlink: SuperLink) -> None:
    superlink.error = PermissionError("run 1 is not running")
    superlink.open.set()
    asked(superlink, 3)
    assert ailment(case).endswith("for 15 s (last: PermissionError)")


def test_rest_ends_the_questions(case: Case, superlink: SuperLink) -> None:
    asked(superlink, 1)
    case.vitals.rest()
    superlink.open.set()
    assert not superlink.asked.acquire(timeout=0.1)
