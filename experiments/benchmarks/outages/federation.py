"""A federation of real Flower processes whose leader is struck again and again.

One run serves several samples, because starting one takes longer than most outages. A
leader is struck at the first update of a round, once another aggregator stands by and
the last one struck is back.
"""

import contextlib
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
from fedsecure.heartbeat import started_at

FAULTS = ("host lost", "pause", "partition", "crash, supervised", "hand-over")
_CONFIG = (
    "backend=deployment",
    "federation.sites=2",
    "federation.aggregators=3",
    "privacy=none",
    "encryption=insecure_plain",
    "encryption.masking=none",
)
_WARM = 4.0
"""Seconds that a ServerApp needs until it campaigns; it is seen, not heard."""
_APP, _DAEMON = b"flwr-serverapp", b"fedsecure.daemons.aggregator"
_TICKS = 100.0  # sysconf(SC_CLK_TCK) on Linux


@dataclass
class Strike:
    """One fault: who led, when it struck, in which round."""

    victim: str
    when: float
    round: int


class Striker:
    """Strikes whoever leads, and brings the one struck back once it is followed."""

    def __init__(self, engine: Running, fault: str, most: int) -> None:
        self._engine = engine
        self._fault = fault
        self._most = most
        self._clock = SystemClock()
        self._undo: list[Callable[[], None]] = []
        self._groups: dict[str, Group] = {}
        self.scene: Scene | None = None
        self.strikes: list[Strike] = []

    def begin(self, scene: Scene) -> None:
        self.scene = scene
        if self._fault == "partition":
            for kit in scene.kits.glob("agg-*/kit.json"):
                name = kit.parent.name
                self._groups[name] = Group(name, self._engine.ports)

    def see(self, event: Event) -> None:
        if self.scene is None:
            return
        if event["event"] == "processes":
            for name, group in self._groups.items():
                group.join(processes_of(self.scene.kits / name))
        elif event["event"] == "released" and self.strikes:
            if event["source"] != self.strikes[-1].victim:
                self._bring_back()
        elif event["event"] == "update" and self._may_strike(event):
            self._strike(str(event["source"]), int(str(event["round"])))

    def end(self) -> None:
        self._bring_back()

    def missed(self, outcome: Outcome) -> list[str]:
        _ = outcome
        return []

    def remove(self) -> None:
        for group in self._groups.values():
            group.remove()

    def _may_strike(self, event: Event) -> bool:
        number = int(str(event["round"]))
        if self._undo or len(self.strikes) >= self._most or number < 2:
            return False
        if self.strikes and number < self.strikes[-1].round + 2:
            return False  # an ordinary round in between
        kits = self.scene.kits.glob("agg-*") if self.scene else ()
        others = [k for k in kits if k.name != event["source"]]
        return all(self._warm(kit) for kit in others)

    def _warm(self, kit: Path) -> bool:
        found = _like(kit, _APP)
        now = self._clock.now()
        return any(now - started_at(pid) / _TICKS > _WARM for pid in found)

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


def measure(engine: Running, fault: str, strikes: int, kept: Kept) -> None:
    """Add a run's samples; one that fails is told, and costs its own samples only."""
    striker = Striker(engine, fault, strikes)
    rounds = 2 + 5 * strikes
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fed-bench-") as folder:
        scene = Scene(Path(folder), SystemClock())
        try:
            config = [*_CONFIG, f"federation.rounds={rounds}", *engine.overrides()]
            outcome = play(scene, striker, config).outcome
        except FedsecureError as failed:
            print(f"{engine.plug} {fault}: {failed}", file=sys.stderr)
            return
        finally:
            striker.remove()
    name = f"{engine.plug}, Flower: {fault}"
    kept.add({f"{name}: {w}": s for w, s in samples(striker, outcome).items()})
    seconds = time.monotonic() - begun
    print(f"{name}: {len(striker.strikes)} in {seconds:.0f} s", file=sys.stderr)


def samples(striker: Striker, outcome: Outcome) -> dict[str, list[float]]:
    """Return seconds by what was waited for, over all strikes of a run."""
    out: dict[str, list[float]] = {}
    ordinary = _ordinary(striker.strikes, outcome.events)
    for strike in striker.strikes:
        after = [
            e
            for e in outcome.events
            if float(str(e["now"])) >= strike.when and e["source"] != strike.victim
        ]
        led = _first(after, "leader")
        if led is None:
            continue
        found = {
            "new leader": led,
            "first train message": _first(after, "sent"),
            "next durable step": _first(after, "resumed"),
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
