"""A federation of real Flower processes whose leader is struck again and again.

One run serves several samples, because starting one takes longer than most outages. A
leader is struck at the first update of a round, once the last one struck is let go and
another aggregator has said that it stands by.
"""

import contextlib
import math
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.outages.cut import Group
from experiments.benchmarks.outages.engines import Running
from experiments.benchmarks.outages.samples import BEYOND, Kept
from fedsecure.assembly.wish import HANDOVER, WishFile
from fedsecure.backends import Event, Outcome
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.drills.processes import processes_of, send
from fedsecure.drills.scene import Scene, play
from fedsecure.errors import FedsecureError

FAULTS = ("host lost", "pause", "partition", "supervised crash", "hand-over")
_ENDS = ("host lost", "supervised crash")
_CONFIG = (
    "backend=deployment",
    "federation.sites=2",
    "privacy=none",
    "encryption=insecure_plain",
    "encryption.masking=none",
)
_APP, _DAEMON = b"flwr-serverapp", b"fedsecure.daemons.aggregator"


class _EnoughError(Exception):
    """All strikes are followed: the rest of the run is not waited for."""


@dataclass
class Strike:
    """One fault: who led, when it struck, in which round."""

    victim: str
    when: float
    round: int


class Striker:
    """Strikes whoever leads, and brings the one struck back once it is followed."""

    def __init__(
        self, engine: Running, fault: str, most: int, limit: float = math.inf
    ) -> None:
        self._engine = engine
        self._fault = fault
        self._most = most
        self._clock = SystemClock()
        self._ends = self._clock.now() + limit
        self._undo: list[Callable[[], None]] = []
        self._groups: dict[str, Group] = {}
        self._stand: set[str] = set()
        self.scene: Scene | None = None
        self.strikes: list[Strike] = []
        self.events: list[Event] = []

    def begin(self, scene: Scene) -> None:
        self.scene = scene
        if self._fault == "partition":
            for kit in scene.kits.glob("agg-*/kit.json"):
                name = kit.parent.name
                self._groups[name] = Group(name, self._engine.ports)

    def see(self, event: Event) -> None:
        self.events.append(event)
        if self._clock.now() > self._ends:
            raise _EnoughError
        what, source = event["event"], str(event["source"])
        if what == "standby":
            self._stand.add(source)
        elif what == "processes" and self.scene is not None:
            for name, group in self._groups.items():
                group.join(processes_of(self.scene.kits / name))
        elif what == "released" and self.strikes:
            self._go_on(source, int(str(event["round"])))
        elif what == "update" and self._may_strike(source, int(str(event["round"]))):
            self._strike(source, int(str(event["round"])))

    def _go_on(self, source: str, number: int) -> None:
        last = self.strikes[-1]
        if source != last.victim:
            self._bring_back()
            if len(self.strikes) >= self._most and number > last.round:
                raise _EnoughError

    def end(self) -> None:
        self._bring_back()

    def missed(self, outcome: Outcome) -> list[str]:
        _ = outcome
        return []

    def remove(self) -> None:
        for group in self._groups.values():
            group.remove()

    def _may_strike(self, leader: str, number: int) -> bool:
        if self._undo or len(self.strikes) >= self._most or number < 2:
            return False
        if self.strikes and number <= self.strikes[-1].round:
            return False
        return bool(self._stand - {leader})

    def _strike(self, victim: str, number: int) -> None:
        if self.scene is None:
            return
        kit = self.scene.kits / victim
        all_of_it = processes_of(kit)
        daemon = _like(kit, _DAEMON)
        when = self._clock.now()
        if self._fault == "host lost":
            # The supervisor goes down with its host: stopped, it gives no lease up.
            send(daemon, signal.SIGSTOP)
            send(all_of_it - daemon, signal.SIGKILL)
            self._undo.append(lambda: send(daemon, signal.SIGCONT))
        elif self._fault == "pause":
            send(all_of_it, signal.SIGSTOP)
            self._undo.append(lambda: send(all_of_it, signal.SIGCONT))
        elif self._fault == "partition":
            self._groups[victim].cut()
            self._undo.append(self._groups[victim].heal)
        elif self._fault == "hand-over":
            WishFile(kit / "state", HANDOVER, SystemDisk()).make()
        else:
            send(_like(kit, _APP), signal.SIGKILL)
        self.strikes.append(Strike(victim, when, number))
        killed = self._engine.plug == "embedded" and self._fault == "pause"
        if killed or self._fault in _ENDS:
            self._stand.discard(victim)  # until its next process says so

    def _bring_back(self) -> None:
        while self._undo:
            self._undo.pop()()


def _like(kit: Path, words: bytes) -> frozenset[int]:
    found = set()
    for pid in processes_of(kit):
        with contextlib.suppress(OSError):
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return frozenset(found)


def measure(
    engine: Running, fault: str, strikes: int, kept: Kept, limit: float
) -> None:
    """Add a run's samples; one that fails is told, and keeps what it has.

    Parameters
    ----------
    limit : float
        Seconds after which the run is not waited for any longer.
    """
    striker = Striker(engine, fault, strikes, limit)
    rounds = 2 + 10 * strikes
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fed-bench-") as folder:
        scene = Scene(Path(folder), SystemClock())
        try:
            # A third one leads on while what was killed starts again.
            count = 3 if fault in _ENDS else 2
            config = [
                *_CONFIG,
                f"federation.aggregators={count}",
                f"federation.rounds={rounds}",
                *engine.overrides(),
            ]
            play(scene, striker, config)
        except _EnoughError:
            pass
        except FedsecureError as failed:
            print(f"{engine.plug} {fault}: {failed}", file=sys.stderr)
        finally:
            striker.remove()
    name = f"{engine.plug}, Flower: {fault}"
    kept.add({f"{name}: {w}": s for w, s in samples(striker).items()})
    seconds = time.monotonic() - begun
    print(f"{name}: {len(striker.strikes)} in {seconds:.0f} s", file=sys.stderr)


def samples(striker: Striker) -> dict[str, list[float]]:
    """Return seconds by what was waited for, over all strikes of a run."""
    out: dict[str, list[float]] = {}
    ordinary = _ordinary(striker.strikes, striker.events)
    for strike in striker.strikes:
        after = [
            e
            for e in striker.events
            if float(str(e["now"])) >= strike.when and e["source"] != strike.victim
        ]
        led = _first(after, "leader")
        if led is None:
            continue
        found = {
            "new leader": led,
            "first train message": _first(after, "sent"),
            "round taken up": _first(after, "resumed"),
            "next update": _first(after, "update"),
            "next completed round": _first(after, "released"),
        }
        for what, moment in found.items():
            if moment is not None:
                out.setdefault(what, []).append(moment - strike.when)
        ended = found["next completed round"]
        if ended is not None and ordinary:
            beyond = ended - led - ordinary
            out.setdefault(BEYOND, []).append(max(beyond, 0.0))
    if ordinary:
        out["an ordinary round"] = [ordinary]
    return out


def _ordinary(strikes: Sequence[Strike], events: Sequence[Event]) -> float:
    broken = {1, *(s.round for s in strikes)}
    whole = [
        float(str(e["seconds"]))
        for e in events
        if e["event"] == "released" and e["round"] not in broken
    ]
    return statistics.median(whole) if whole else 0.0


def _first(events: Sequence[Event], kind: str) -> float | None:
    moments = [float(str(e["now"])) for e in events if e["event"] == kind]
    return min(moments, default=None)
