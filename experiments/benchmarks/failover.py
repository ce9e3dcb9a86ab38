"""How long nobody leads: from a fault to a new leader, and to the next durable step.

    python experiments/benchmarks/failover.py [--json] [--plot FILE] [--repeats 30]
        [--only embedded,...] [--flower 0]

Members are processes of their own that hold the lease by the product's own campaign
(`fedsecure.drills.member`): SIGKILL or SIGSTOP from outside, times on the machine's
clock that all of them read. `load` is the machine's load average over a minute before
each row: on a busy machine the figures are the scheduler's. etcd and PostgreSQL are
started on loopback if this machine has them; `--flower N` adds N runs of a whole
federation of real Flower processes whose leader's host is lost in mid-round.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from fedsecure.clock import SystemClock
from fedsecure.drills.member import Part

CLOCK = SystemClock()
TTL = 3.0
GOALS = {  # seconds: p50, p99
    "embedded: SIGKILL to new leader": (0.05, 0.25),
    "etcd: SIGKILL to new leader": (4.0, 6.0),
    "etcd: SIGSTOP to new leader": (4.0, 6.0),
    "postgresql: SIGKILL to new leader": (4.0, 6.0),
    "postgresql: SIGSTOP to new leader": (4.0, 6.0),
}


class Member:
    """A member's process and what it says, as it says it."""

    def __init__(self, part: Part) -> None:
        self.name = part.name
        self.lines: list[Mapping[str, Any]] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            part.command(), stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("{"):
                with self._more:
                    self.lines.append(json.loads(line))
                    self._more.notify_all()

    def first(self, event: str, since: float, limit: float = 60.0) -> float:
        """Return when it said `event` first after a moment; waits for it."""
        ends = time.monotonic() + limit
        with self._more:
            while True:
                for line in self.lines:
                    if line["event"] == event and line["now"] >= since:
                        return float(line["now"])
                if not self._more.wait(ends - time.monotonic()):
                    raise RuntimeError(f"{self.name} never said {event!r}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


Settings = Callable[[], Mapping[str, object]]
Rows = dict[str, list[float]]


def struck(plug: str, settings: Mapping[str, object], how: signal.Signals) -> Rows:
    """Strike a leader once; return seconds by what was waited for."""
    leader = Member(Part("first", plug, settings, TTL))
    members = [leader]
    try:
        leader.first("wrote", 0.0)
        standby = Member(Part("second", plug, settings, TTL))
        members.append(standby)
        standby.first("stands by", 0.0)
        time.sleep(0.3)
        begun = CLOCK.now()
        leader.process.send_signal(how)
        led = standby.first("leads", begun) - begun
        wrote = standby.first("wrote", begun) - begun
    finally:
        for member in members:
            member.end()
    return {"new leader": [led], "next durable step": [wrote]}


def measured(
    plug: str, settings: Settings, how: signal.Signals, repeats: int
) -> dict[str, dict[str, Any]]:
    load, found = os.getloadavg()[0], Rows()
    for number in range(repeats):
        for what, seconds in struck(plug, settings(), how).items():
            found.setdefault(what, []).extend(seconds)
        print(f"\r{plug} {how.name} {number + 1}/{repeats}", end="", file=sys.stderr)
    print(file=sys.stderr)
    names = {what: f"{plug}: {how.name} to {what}" for what in found}
    return {names[what]: row(names[what], s, load) for what, s in found.items()}


def row(name: str, seconds: list[float], load: float) -> dict[str, Any]:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    p50, goal = statistics.median(ordered), GOALS.get(name)
    return {
        "n": len(ordered),
        "p50": p50,
        "p99": p99,
        "most": ordered[-1],
        "goal": goal,
        "met": None if goal is None else p50 <= goal[0] and p99 <= goal[1],
        "load": load,
        "seconds": ordered,
    }


@contextlib.contextmanager
def embedded() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="fed-bench-") as folder:
        numbers = iter(range(10**6))
        yield lambda: {"path": f"{folder}/{next(numbers)}"}


@contextlib.contextmanager
def etcd() -> Iterator[Settings]:
    from tests.fakes.servers import etcd as started  # noqa: PLC0415

    with started(3) as cluster:
        numbers = iter(range(10**6))
        yield lambda: {
            "endpoints": cluster.endpoints,
            "prefix": f"bench/{next(numbers)}",
            "timeout": 1.0,
        }


@contextlib.contextmanager
def postgresql() -> Iterator[Settings]:
    from tests.fakes.servers import postgresql as started  # noqa: PLC0415

    with started() as server:
        numbers = iter(range(10**6))
        yield lambda: {
            "url": server.url,
            "schema": f"bench{next(numbers)}",
            "timeout": 1.0,
        }


def flower(repeats: int) -> dict[str, dict[str, Any]]:
    from fedsecure.drills.catalogue import DRILLS  # noqa: PLC0415
    from fedsecure.drills.drill import rehearse  # noqa: PLC0415
    from fedsecure.progress import quiet  # noqa: PLC0415

    load, leader, update = os.getloadavg()[0], [], []
    for _ in range(repeats):
        with quiet():
            shown = rehearse(DRILLS["failover"], CLOCK)
        for key, into in (
            ("seconds_to_leader", leader),
            ("seconds_to_next_update", update),
        ):
            value = shown[key]
            if isinstance(value, float):
                into.append(value)
    names = (
        "embedded, Flower: SIGKILL to new leader",
        "embedded, Flower: SIGKILL to the successor's first update",
    )
    pairs = zip(names, (leader, update), strict=True)
    return {name: row(name, seconds, load) for name, seconds in pairs if seconds}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| from a fault to | n | p50 s | p99 s | target | met | load |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, r in rows.items():
        goal = "-" if r["goal"] is None else f"{r['goal'][0]} / {r['goal'][1]}"
        met = {None: "-", True: "yes", False: "no"}[r["met"]]
        cells = (name, r["n"], f"{r['p50']:.3f}", f"{r['p99']:.3f}", goal, met)
        lines.append(f"| {' | '.join(str(c) for c in cells)} | {r['load']:.1f} |")
    return "\n".join(lines)


def plot(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.5))
    for place, (name, found) in enumerate(rows.items()):
        count = len(found["seconds"])
        axes.plot(found["seconds"], [place] * count, "|", markersize=14, label=name)
        if found["goal"]:
            axes.plot(found["goal"][:1], [place], "kv", markersize=6)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xscale("log")
    axes.set_xlabel("seconds; the triangle is the target of the median")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


ENGINES = {"embedded": embedded, "etcd": etcd, "postgresql": postgresql}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", default="embedded,etcd,postgresql")
    parser.add_argument("--flower", type=int, default=0)
    asked = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for plug in filter(None, asked.only.split(",")):
        repeats = asked.repeats if plug == "embedded" else max(asked.repeats // 6, 1)
        with ENGINES[plug]() as settings:
            rows |= measured(plug, settings, signal.SIGKILL, repeats)
            rows |= measured(plug, settings, signal.SIGSTOP, max(repeats // 6, 1))
    if asked.flower:
        rows |= flower(asked.flower)
    if asked.plot:
        plot(rows, asked.plot)
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
