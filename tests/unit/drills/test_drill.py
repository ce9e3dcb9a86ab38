"""A repetition's verdict: what ended, what is lost, what broke, and when."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from fedsecure.backends import Event, Job, Outcome
from fedsecure.clock import SystemClock
from fedsecure.drills import drill
from fedsecure.drills.drill import Drill, judged, kept, rehearse
from fedsecure.drills.history import Commit, History
from fedsecure.drills.hosts import LostHost
from fedsecure.drills.scene import Fault, Played, Scene
from fedsecure.errors import ProcessFailed
from fedsecure.trainer import JSON

NOTHING = History("run", 0, False, [], [], [], {})
FORKED = [Commit(1, 1, 1, "a", "", "r", {}), Commit(2, 2, 1, "c", "b", "s", {})]


class Kind(LostHost):
    """A fault that promised something, kept or not."""

    def __init__(self, *missed: str) -> None:
        super().__init__()
        self._missed = [*missed]

    def missed(self, outcome: Outcome) -> list[str]:
        return self._missed


def event(what: str, now: float, **more: JSON) -> Event:
    return {"event": what, "source": "agg-1", "now": now, "term": 1, **more}


WHOLE = (
    event("leader", 1.0),
    event("update", 2.0, round=1, site="a"),
    event("released", 3.0, round=1, participants=["a"]),
)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, SystemClock(), struck=1.5)


def verdict(
    monkeypatch: pytest.MonkeyPatch,
    scene: Scene,
    events: tuple[Event, ...] = WHOLE,
    history: History = NOTHING,
    fault: Fault | None = None,
) -> Mapping[str, JSON]:
    monkeypatch.setattr(drill, "history_of", lambda _job, _outcome: history)
    played = Played(cast("Job", None), Outcome(events, {}, {}))
    return judged(scene, fault or Kind(), played, 0.0)


def test_a_run_that_lost_nothing_kept_its_promises(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    shown = verdict(monkeypatch, scene)
    assert kept(shown)
    assert (shown["seconds_to_next_update"], shown["seconds_to_next_release"]) == (
        0.5,
        1.5,
    )


def test_an_update_that_is_lost_is_no_promise_kept(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    lost = (*WHOLE[:2], event("released", 3.0, round=1, participants=["b"]))
    shown = verdict(monkeypatch, scene, lost)
    assert not kept(shown)
    assert cast("dict[str, JSON]", shown["broken"])["I5"] == [
        "0 rounds and 1 updates are lost"
    ]


def test_a_round_released_twice_is_no_promise_kept(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    assert not kept(verdict(monkeypatch, scene, (*WHOLE, WHOLE[-1])))


def test_a_fork_of_the_checkpoints_is_no_promise_kept(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    forked = History("run", 0, False, [], FORKED, [], {})
    assert not kept(verdict(monkeypatch, scene, history=forked))


def test_what_the_fault_itself_finds_wrong_is_no_promise_kept(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    assert not kept(verdict(monkeypatch, scene, fault=Kind("it came back")))


def test_a_run_that_does_not_end_is_no_promise_kept() -> None:
    def stuck(folder: Path, clock: object) -> dict[str, JSON]:
        raise ProcessFailed("nothing happened for 300 s")

    shown = rehearse(Drill(stuck), SystemClock())
    assert not kept(shown)
    assert shown["promises"] == [
        "the run did not reach its end: nothing happened for 300 s"
    ]


def test_the_timeline_has_the_blow_between_what_went_before_and_after(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    scene.notes.append((1.5, "SIGKILL"))
    rows = cast("list[dict[str, JSON]]", verdict(monkeypatch, scene)["timeline"])
    assert [row["what"] for row in rows] == [
        "agg-1: leader term 1",
        "DRILL: SIGKILL",
        "agg-1: released round 1, term 1, participants ['a']",
    ]
