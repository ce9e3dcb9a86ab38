"""The picture of a run's leaders: who led, when, and which round was under way."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsecure.pictures import ALARM, INK, MUTED, PAPER, STYLE, Picture, kept

Row: TypeAlias = Mapping[str, Any]
"""One line of the rounds or of the timeline."""
LEADERS = ("#2f7fd1", "#b8651b", "#1f8a66", "#8350b3")  # each carries white figures


@dataclass(frozen=True, slots=True)
class Reign:
    """The time one aggregator led, in seconds since the run's first event."""

    name: str
    term: object
    start: float
    end: float
    killed: bool


def timeline_picture(rounds: Sequence[Row], timeline: Sequence[Row]) -> Picture | None:
    """Return rounds and leaders over time, with every kill; None without a leader."""
    end = max((float(row["at"]) for row in timeline), default=0.0)
    leaders = reigns(timeline, end)
    if not leaders or end <= 0:
        return None
    names = sorted({r.name for r in leaders})
    lanes = {name: i for i, name in enumerate(names)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 1.5 + 0.62 * len(lanes)), layout="constrained")
        axes = figure.add_subplot()
        for reign in leaders:
            _reign(axes, reign, lanes[reign.name])
        for row in rounds:
            _round_bars(axes, row, leaders, lanes, end)
        _gaps(axes, leaders, len(lanes))
        axes.set_title("Who led, and which round was under way")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(lanes) - 0.4, -0.75)
        axes.set_xlim(0, end * 1.01)
        axes.set_xlabel("seconds since the first event")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        said = ", ".join(
            f"{r.name} led term {r.term} from {r.start:.1f} s to {r.end:.1f} s"
            + (" and was killed" if r.killed else "")
            for r in leaders
        )
        return kept(figure, "timeline", f"{said}.")


def reigns(timeline: Sequence[Row], end: float) -> list[Reign]:
    """Return who led when: until a kill, a lost lease, the next leader or the end.

    A kill may be noted after the next leader's start: a lock ends with its process,
    the note is written when all processes of the host are gone.
    """
    out = []
    marks = [row for row in timeline if row["event"] in {"leader", "kill", "lost"}]
    for i, row in enumerate(marks):
        if row["event"] != "leader":
            continue
        ends = [m for m in marks[i + 1 :] if _ends(m, str(row["name"]))]
        stop = float(ends[0]["at"]) if ends else end
        killed = bool(ends) and _killed(row, ends[0], marks[i + 1 :])
        name, start = str(row["name"]), float(row["at"])
        out.append(Reign(name, row.get("term"), start, stop, killed))
    return out


def _ends(mark: Row, holder: str) -> bool:
    return bool(mark["event"] == "leader" or mark["name"] == holder)


def _killed(reign: Row, ending: Row, later: Sequence[Row]) -> bool:
    if ending["event"] != "leader":
        return bool(ending["event"] == "kill")
    return any(
        mark["event"] == "kill"
        and (mark["name"], mark.get("term")) == (reign["name"], reign.get("term"))
        for mark in later
    )


def _reign(axes: Axes, reign: Reign, lane: int) -> None:
    width = reign.end - reign.start
    axes.barh(lane, width, 0.74, reign.start, color=_livery(lane), alpha=0.13)
    axes.text(
        reign.start,
        lane - 0.41,
        f" term {reign.term}",
        va="bottom",
        color=MUTED,
        size=8,
    )
    if reign.killed:
        axes.plot(reign.end, lane, marker="X", markersize=12, color=ALARM, zorder=5)
        axes.annotate(
            "SIGKILL",
            (reign.end, lane - 0.41),
            ha="center",
            va="bottom",
            color=ALARM,
            fontweight="bold",
            fontsize=9,
        )


def _round_bars(
    axes: Axes,
    row: Row,
    leaders: Sequence[Reign],
    lanes: Mapping[str, int],
    end: float,
) -> None:
    """Draw a round where it was under way; hatched where its leader did not end it."""
    started, ended = float(row["started"]), float(row["ended"])
    for reign in leaders:
        left, right = max(started, reign.start), min(ended, reign.end)
        if right <= left:
            continue
        whole = ended <= reign.end
        axes.barh(
            lanes[reign.name],
            right - left,
            0.46,
            left,
            color=_livery(lanes[reign.name]) if whole else "none",
            edgecolor=PAPER if whole else ALARM,
            hatch=None if whole else "////",
            linewidth=0.8,
        )
        label = str(row["round"])
        if right - left > (0.008 + 0.009 * len(label)) * end and whole:
            middle = ((left + right) / 2, lanes[reign.name])
            axes.text(*middle, label, ha="center", va="center", color="#ffffff")


def _livery(lane: int) -> str:
    return LEADERS[lane % len(LEADERS)]


def _gaps(axes: Axes, leaders: Sequence[Reign], lanes: int) -> None:
    for before, after in itertools.pairwise(leaders):
        gap = after.start - before.end
        if gap <= 0:
            continue
        axes.axvspan(before.end, after.start, color=ALARM, alpha=0.1, linewidth=0)
        axes.text(
            (before.end + after.start) / 2,
            lanes - 0.42,
            f"no leader {gap:.2f} s",
            ha="center",
            va="bottom",
            color=ALARM,
            fontsize=8,
        )
