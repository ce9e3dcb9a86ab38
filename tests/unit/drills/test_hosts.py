"""What a lost or stopped host must not cost, told from the events."""

from pathlib import Path

import pytest

from fedsecure.backends import Event, Outcome
from fedsecure.clock import SystemClock
from fedsecure.drills import hosts
from fedsecure.drills.hosts import LostHost, StoppedHost
from fedsecure.drills.scene import BREAK_IN, Scene
from fedsecure.trainer import JSON


def event(what: str, source: str, now: float, **more: JSON) -> Event:
    return {"event": what, "source": source, "now": now, "round": BREAK_IN, **more}


RESUMED = event("resumed", "two", 10.1, reused=["site-1"])
RELEASED = event("released", "two", 14.0)


Fault = LostHost | StoppedHost


@pytest.fixture(params=[LostHost, StoppedHost])
def fault(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Fault:
    """Return a host "one" that was lost, or stopped, at ten seconds."""
    monkeypatch.setattr(hosts, "processes_of", lambda _: frozenset())
    made: Fault = request.param()
    scene = Scene(tmp_path, SystemClock())
    made.begin(scene)
    made.see(event("update", "one", 9.9))
    scene.struck = 10.0
    return made


def missed(fault: Fault, *events: Event) -> list[str]:
    return fault.missed(Outcome(tuple(events), {}, {}))


def test_a_round_that_another_one_finishes_is_what_was_promised(
    fault: Fault,
) -> None:
    assert missed(fault, RESUMED, RELEASED) == []


def test_a_successor_that_begins_anew_breaks_the_promise(fault: Fault) -> None:
    anew = event("resumed", "two", 10.1, reused=[])
    assert missed(fault, anew, RELEASED) == [
        "the successor reused no update of the broken round"
    ]


def test_what_the_victim_resumed_itself_counts_for_nothing(fault: Fault) -> None:
    own = event("resumed", "one", 10.1, reused=["site-1"])
    assert missed(fault, own, RELEASED) != []


def test_a_round_that_was_over_before_the_blow_has_nothing_to_reuse(
    fault: Fault,
) -> None:
    assert missed(fault, event("released", "one", 10.05)) == []


def test_a_host_that_releases_later_breaks_the_promise(fault: Fault) -> None:
    late = event("released", "one", 20.0)
    (text,) = missed(fault, RESUMED, RELEASED, late)
    assert text == f"one released round {BREAK_IN} after it was broken"


def test_a_drill_in_which_nothing_broke_says_so(tmp_path: Path) -> None:
    made = LostHost()
    made.begin(Scene(tmp_path, SystemClock()))
    (text,) = missed(made, RESUMED, RELEASED)
    assert text.startswith("nothing broke")
