"""One drill: repetitions of a fault, what they showed, and whether it was promised."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsecure.backends import Event
from fedsecure.clock import Clock
from fedsecure.drills.evidence import history_of
from fedsecure.drills.history import CHECKS, broken
from fedsecure.drills.scene import Fault, Played, Scene, play
from fedsecure.errors import FedsecureError
from fedsecure.summary import rounds_lost, updates_lost
from fedsecure.trainer import JSON

_SHOWN = {"leader", "resumed", "released", "lost", "skipped", "finished"}


Rehearsal = Callable[[Path, Clock], dict[str, JSON]]
"""Carries one repetition out in an empty folder, and says what it showed."""


@dataclass(frozen=True, slots=True)
class Drill:
    """What an operator can ask for by name.

    Attributes
    ----------
    rehearsal : callable
    missing : callable
        Returns what this machine lacks for it; empty if nothing.
    """

    rehearsal: Rehearsal
    missing: Callable[[], list[str]] = list


def rehearse(drill: Drill, clock: Clock) -> dict[str, JSON]:
    """Carry one repetition out in a folder of its own that is gone afterwards.

    Returns
    -------
    dict
        ``broken`` by invariant (None: not looked at), ``promises`` not kept, figures
        and a ``timeline``.
    """
    with tempfile.TemporaryDirectory(prefix="fed-drill-") as folder:
        begun = clock.now()
        try:
            return drill.rehearsal(Path(folder), clock)
        except FedsecureError as stopped:
            return _stopped(Scene(Path(folder), clock), begun, str(stopped))


def in_federation(overrides: Sequence[str], fault: Callable[[], Fault]) -> Rehearsal:
    """Return the rehearsal of a fault in a whole federation.

    Parameters
    ----------
    overrides : sequence of str
        Of the federation's configuration.
    fault : callable
        Makes the fault of one repetition.
    """

    def carry_out(folder: Path, clock: Clock) -> dict[str, JSON]:
        scene, begun, made = Scene(folder, clock), clock.now(), fault()
        try:
            played = play(scene, made, overrides)
            return judged(scene, made, played, begun)
        except FedsecureError as stopped:
            return _stopped(scene, begun, str(stopped))

    return carry_out


def judged(scene: Scene, fault: Fault, played: Played, begun: float) -> dict[str, JSON]:
    """Return what a repetition that reached its end showed."""
    outcome = played.outcome
    found = broken(history_of(played.job, outcome))
    events = outcome.events
    if rounds_lost(events) or updates_lost(events):
        lost = (rounds_lost(events), updates_lost(events))
        found["I5"].append("{} rounds and {} updates are lost".format(*lost))
    return {
        "ended": True,
        **_figures(scene, events),
        "broken": {name: [*texts] for name, texts in found.items()},
        "promises": [*fault.missed(outcome)],
        "timeline": _timeline(scene, events, begun),
    }


def kept(shown: Mapping[str, JSON]) -> bool:
    """Return whether a repetition ended and broke no promise."""
    found = shown["broken"]
    wrong = isinstance(found, dict) and any(found.values())
    return bool(shown["ended"]) and not wrong and not shown["promises"]


def _figures(scene: Scene, events: Sequence[Event]) -> dict[str, JSON]:
    later = [e for e in events if scene.struck and _now(e) >= scene.struck]

    def first(kind: str) -> float | None:
        moments = [_now(e) for e in later if e["event"] == kind]
        return min(moments) - scene.struck if moments else None

    resumed = [e for e in later if e["event"] == "resumed"]
    reused = resumed[0]["reused"] if resumed else []
    return {
        "seconds_to_leader": first("leader"),
        "seconds_to_next_update": first("update"),
        "seconds_to_next_release": first("released"),
        "updates_reused": len(reused) if isinstance(reused, list) else 0,
        "rounds_lost": rounds_lost(events),
        "updates_lost": updates_lost(events),
    }


def _timeline(scene: Scene, events: Sequence[Event], begun: float) -> list[JSON]:
    lines = [(_now(e), _line(e)) for e in events if e["event"] in _SHOWN]
    lines += [(at, f"DRILL: {text}") for at, text in scene.notes]
    return [{"at": round(at - begun, 3), "what": text} for at, text in sorted(lines)]


def _line(event: Event) -> str:
    names = ("round", "term", "reused", "participants", "reason")
    facts = [f"{name} {event[name]}" for name in names if event.get(name)]
    return f"{event['source']}: {event['event']} {', '.join(facts)}".strip()


def _stopped(scene: Scene, begun: float, reason: str) -> dict[str, JSON]:
    return {
        "ended": False,
        **_figures(scene, ()),
        "broken": dict.fromkeys(CHECKS),
        "promises": [f"the run did not reach its end: {reason}"],
        "timeline": _timeline(scene, (), begun),
    }


def _now(event: Event) -> float:
    return float(str(event["now"]))
