"""Two members that hold lease and journal by the product's own campaign, one struck."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.outages.cut import Group, missing
from experiments.benchmarks.outages.engines import TTL, Running
from experiments.benchmarks.outages.samples import Kept
from fedsecure import registry
from fedsecure.assembly.wish import HANDOVER, WishFile
from fedsecure.clock import SystemClock
from fedsecure.daemons.seat import Seat
from fedsecure.daemons.supervisor import wait_for_end
from fedsecure.disk import SystemDisk
from fedsecure.drills.member import Part

CLOCK = SystemClock()
FAULTS = {
    "embedded": ("host lost", "pause", "hand-over"),
    "etcd": ("host lost", "pause", "partition", "supervised crash", "hand-over"),
    "postgresql": ("host lost", "pause", "partition", "supervised crash", "hand-over"),
}


class Member:
    """A member's process and what it says, as it says it."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.lines: list[Mapping[str, Any]] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("{"):
                with self._more:
                    self.lines.append(json.loads(line))
                    self._more.notify_all()

    def first(
        self, event: str, since: float, limit: float = 60.0, number: int | None = None
    ) -> float:
        """Return when it said `event` first after a moment; waits for it.

        Parameters
        ----------
        number : int, optional
            Of the round; any if None.
        """
        ends = time.monotonic() + limit
        with self._more:
            while True:
                for line in self.lines:
                    right = number is None or line.get("round") == number
                    if line["event"] == event and line["now"] >= since and right:
                        return float(line["now"])
                if not self._more.wait(ends - time.monotonic()):
                    raise RuntimeError(f"{self.name} never said {event!r}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def struck(engine: Running, fault: str) -> dict[str, float]:
    """Strike a leader once; return seconds by what was waited for."""
    settings = engine.corner()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        group = None
        if fault == "partition":
            group = Group("first", engine.ports)
            stack.callback(group.remove)
        part = Part("first", engine.plug, settings, TTL, handover=str(folder))
        leader = Member(part.name, [*(group.prefix if group else []), *part.command()])
        stack.callback(leader.end)
        leader.first("wrote", 0.0)
        second = Part("second", engine.plug, settings, TTL)
        standby = Member(second.name, second.command())
        stack.callback(standby.end)
        standby.first("stands by", 0.0)
        if fault == "supervised crash":
            _supervise(engine, settings, leader)
        time.sleep(0.3)
        begun = CLOCK.now()
        _strike(fault, leader, group, folder)
        led = standby.first("leads", begun) - begun
        wrote = standby.first("wrote", begun) - begun
    return {"new leader": led, "next durable step": wrote}


def _strike(fault: str, leader: Member, group: Group | None, folder: Path) -> None:
    if group is not None:
        group.cut()
    elif fault == "hand-over":
        WishFile(folder, HANDOVER, SystemDisk()).make()
    else:
        number = signal.SIGSTOP if fault == "pause" else signal.SIGKILL
        leader.process.send_signal(number)


def _supervise(engine: Running, settings: Mapping[str, object], leader: Member) -> None:
    """Do for a member what an aggregator's daemon does for its ServerApp."""
    given = {**settings, "trial": False}
    plug = registry.load("metadata", engine.plug)
    seat = Seat(lambda: plug.create(given).leases, leader.name, "here")
    seat.prepare()

    def watch() -> None:
        if wait_for_end([leader.process.pid], 60.0):
            seat.vacate()

    threading.Thread(target=watch, daemon=True).start()


def measure(engine: Running, repeats: int, kept: Kept) -> None:
    for fault in FAULTS[engine.plug]:
        if fault == "partition" and missing():
            print(f"{engine.plug}: partition: {missing()}", file=sys.stderr)
            continue
        for number, seconds in enumerate(_samples(engine, fault, repeats), 1):
            names = {f"{engine.plug}: {fault}: {w}": [s] for w, s in seconds.items()}
            kept.add(names)
            print(f"\r{engine.plug} {fault} {number}", end="", file=sys.stderr)
        print(file=sys.stderr)


def _samples(engine: Running, fault: str, repeats: int) -> Iterator[dict[str, float]]:
    for _ in range(repeats):
        yield struck(engine, fault)
