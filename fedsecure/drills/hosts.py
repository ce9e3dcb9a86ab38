"""Faults of an aggregator's host: lost at once, or standing still for a while."""

import signal
from collections.abc import Sequence

from fedsecure.backends import Event, Outcome
from fedsecure.drills.processes import processes_of, send
from fedsecure.drills.scene import BREAK_IN, Scene, at_first_update, released

LOST_HOST: Sequence[str] = (
    "backend=deployment",
    f"backend.kill_leader_in_round={BREAK_IN}",
)
_BLOW = 1.0
"""Seconds that a blow may take until the last process is hit."""
STOPPED_HOST: Sequence[str] = ("backend=deployment",)


class LostHost:
    """SIGKILL of every process of the leader, in mid-round; the backend does it."""

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self._victim = ""

    def begin(self, scene: Scene) -> None:
        """Take the scene."""
        self._scene = scene

    def see(self, event: Event) -> None:
        """Note the blow: it is struck within this call, after the event."""
        if self._scene is None or self._victim or not at_first_update(event):
            return
        self._victim = str(event["source"])
        self._scene.strike(f"SIGKILL of all processes of {self._victim}")

    def end(self) -> None:
        """Nothing outlasts it."""

    def missed(self, outcome: Outcome) -> list[str]:
        """Return what a lost host must not cost."""
        return _followed(self._victim, self._scene, outcome)


class StoppedHost:
    """SIGSTOP of every process of the leader; SIGCONT once another released."""

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self._victim = ""
        self._stopped: frozenset[int] = frozenset()

    def begin(self, scene: Scene) -> None:
        """Take the scene."""
        self._scene = scene

    def see(self, event: Event) -> None:
        """Stop, later resume."""
        if self._scene is None:
            return
        if at_first_update(event) and not self._victim:
            self._victim = str(event["source"])
            self._stopped = processes_of(self._scene.kits / self._victim)
            count = len(self._stopped)
            self._scene.strike(f"SIGSTOP of {count} processes of {self._victim}")
            send(self._stopped, signal.SIGSTOP)
        elif released(event) and self._stopped:
            self._scene.note(f"SIGCONT of what is left of {self._victim}")
            self.end()

    def end(self) -> None:
        """Resume what is stopped."""
        send(self._stopped, signal.SIGCONT)
        self._stopped = frozenset()

    def missed(self, outcome: Outcome) -> list[str]:
        """Return what a host that comes back must not do."""
        return _followed(self._victim, self._scene, outcome)


def _followed(victim: str, scene: Scene | None, outcome: Outcome) -> list[str]:
    """Return whether another aggregator went on where the victim was."""
    if not victim or scene is None:
        return [f"nothing broke: no update of round {BREAK_IN} was seen"]
    struck, dead = scene.struck, scene.struck + _BLOW
    after = [e for e in outcome.events if float(str(e["now"])) >= struck]
    out = [
        f"{victim} released round {e['round']} after it was broken"
        for e in after
        if e["event"] == "released"
        and e["source"] == victim
        and float(str(e["now"])) >= dead
    ]
    others = [e for e in after if e["source"] != victim]
    reused = [e for e in others if e["event"] == "resumed" and e["reused"]]
    # On a busy machine the round may be over before the blow: nothing to reuse then.
    over = any(released(e) and e["source"] == victim for e in outcome.events)
    if not over and not reused:
        out.append("the successor reused no update of the broken round")
    return out
