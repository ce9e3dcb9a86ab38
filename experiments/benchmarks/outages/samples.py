"""Samples by row: gathered in pieces, kept in a file, judged and drawn together."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GOALS = {  # the rows of the issue: the end of a name, and seconds p50, p99
    "embedded: host lost: new leader": (0.05, 0.25),
    "embedded: host lost: next durable step": (0.25, 1.0),
    "embedded, in process: SIGKILL: round goes on": (0.25, 1.0),
    "embedded, Flower: host lost: first train message": (1.0, 3.0),
}
for _engine in ("etcd", "postgresql"):
    for _fault in ("host lost", "pause", "partition"):
        GOALS[f"{_engine}: {_fault}: new leader"] = (4.0, 6.0)
        GOALS[f"{_engine}, Flower: {_fault}: first train message"] = (4.0, 6.0)
    GOALS[f"{_engine}: supervised crash: new leader"] = (0.3, 1.5)
    GOALS[f"{_engine}, Flower: supervised crash: new leader"] = (0.3, 1.5)
for _engine in ("embedded", "etcd", "postgresql"):
    GOALS[f"{_engine}: hand-over: next durable step"] = (0.5, 1.0)
    GOALS[f"{_engine}, Flower: hand-over: round taken up"] = (0.5, 1.0)
BEYOND = "next round, beyond detection and an ordinary round"
BEYOND_GOAL = (1.0, 5.0)
_LEAST = 0.001  # drawn for less: the axis is logarithmic

Samples = dict[str, list[float]]


class Kept:
    """Samples by row, with the load average when each piece began."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        found = path.read_text() if path is not None and path.exists() else "{}"
        self.rows: dict[str, dict[str, list[float]]] = json.loads(found)

    def add(self, samples: Mapping[str, Sequence[float]]) -> None:
        """Add to the rows, and to the file at once: a piece may be cut short."""
        for name, seconds in samples.items():
            row = self.rows.setdefault(name, {"seconds": [], "load": []})
            row["seconds"] += seconds
            row["load"].append(round(os.getloadavg()[0], 2))
        if self._path is not None:
            self._path.write_text(json.dumps(self.rows, indent=1) + "\n")


def goal(name: str) -> tuple[float, float] | None:
    return BEYOND_GOAL if name.endswith(BEYOND) else GOALS.get(name)


def figures(rows: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Return each row's figures; p99 of fewer than a hundred is the largest."""
    out = {}
    for name, row in rows.items():
        ordered = sorted(row["seconds"])
        p50 = statistics.median(ordered)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        wanted = goal(name)
        out[name] = {
            "n": len(ordered),
            "p50": p50,
            "p99": p99,
            "goal": wanted,
            "met": None if wanted is None else p50 <= wanted[0] and p99 <= wanted[1],
            "load": max(row["load"]),
            "seconds": ordered,
        }
    return out


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| from the fault to | n | p50 s | p99 s | target | met | load |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, r in found.items():
        aim = "-" if r["goal"] is None else f"{r['goal'][0]:g} / {r['goal'][1]:g}"
        met = {None: "-", True: "yes", False: "**no**"}[r["met"]]
        cells = (name, r["n"], f"{r['p50']:.3f}", f"{r['p99']:.3f}", aim, met)
        lines.append(f"| {' | '.join(str(c) for c in cells)} | {r['load']:.1f} |")
    return "\n".join(lines)


def plot(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    drawn = {name: row for name, row in found.items() if row["goal"]}
    figure, axes = plt.subplots(figsize=(11, 0.3 * len(drawn) + 1.2))
    for place, row in enumerate(drawn.values()):
        seconds = [max(s, _LEAST) for s in row["seconds"]]
        axes.plot(seconds, [place] * row["n"], "|", color="C0", markersize=10)
        axes.plot([max(row["p50"], _LEAST)], [place], "o", color="C0", markersize=4)
        axes.plot(row["goal"][:1], [place], "kv", markersize=5)
        axes.plot(row["goal"][1:], [place], "k>", markersize=5)
    axes.set_yticks(range(len(drawn)), [f"{n} ({r['n']})" for n, r in drawn.items()])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("seconds; dot: p50; triangles: targets of p50 and p99")
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
