"""The pictures of a run: what it learned, what it spent, who led it and when.

Each is drawn once and kept twice: as PNG on white, and as SVG whose ink follows the
reader's light or dark setting. One style for all; colour never tells anything alone.
"""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Row: TypeAlias = Mapping[str, Any]
"""One line of the rounds or of the timeline."""

INK, MUTED, LINE = "#1f2a37", "#5c6878", "#d3dae3"
ALARM = "#d64545"
PAPER = "#fefefe"
SERIES = ("#2f7fd1", "#e0812b", "#2a9d76", "#9a62c7", "#c2528b", "#8a8f2a")
LEADERS = ("#2f7fd1", "#b8651b", "#1f8a66", "#8350b3")  # each carries white figures
BASELINES = (
    ("unprotected_accuracy", "without protection"),
    ("local_noise_accuracy", "local noise, same epsilon"),
    ("centralised_accuracy", "centralised"),
)
"""Keys of a summary's baselines, and what they are called."""
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
STYLE: dict[Any, Any] = {  # the keys are matplotlib's own
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with a dollar sign is a name
}
_DARK = (
    f":root{{--ink:{INK};--muted:{MUTED};--line:{LINE};--paper:{PAPER}}}"
    "@media(prefers-color-scheme:dark){"
    ":root{--ink:#e8edf3;--muted:#a3afbd;--line:#3a4655;--paper:#1a212b}}"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in both of its forms.

    Attributes
    ----------
    name : str
        Of the file, without its ending.
    alt : str
        The picture in words.
    png, svg : bytes
    """

    name: str
    alt: str
    png: bytes
    svg: bytes


@dataclass(frozen=True, slots=True)
class Reign:
    """The time one aggregator led, in seconds since the run's first event."""

    name: str
    term: object
    start: float
    end: float
    killed: bool


def learning_picture(rounds: Sequence[Row], summary: Row) -> Picture | None:
    """Return accuracy and loss by rounds completed; None if no metrics left the sites.

    A round evaluates the model it starts from, so its figures stand one step back and
    the final evaluation closes the curve.
    """
    panels = [
        (name, points)
        for name in ("accuracy", "loss")
        if len(points := _points(name, rounds, summary)) > 0
    ]
    if not panels:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
        for i, (name, points) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), i + 1)
            _curve(axes, name, points)
            if name == "accuracy":
                _baselines(axes, summary.get("baseline") or {}, max(points[-1][0], 1))
        last = "; ".join(f"{n} {p[0][1]:.3g} to {p[-1][1]:.3g}" for n, p in panels)
        return kept(figure, "accuracy", f"By rounds completed: {last}.")


def epsilon_picture(rounds: Sequence[Row], privacy: Row) -> Picture | None:
    """Return epsilon by round, a line per site; None without differential privacy."""
    spent: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for site in sorted({s for row in rounds for s in row.get("epsilon") or {}}):
        line = tuple(
            (int(row["round"]), float(row["epsilon"][site]))
            for row in rounds
            if site in (row.get("epsilon") or {})
        )
        spent.setdefault(line, []).append(site)
    if not spent:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for i, (line, sites) in enumerate(spent.items()):
            _steps(axes, i, line, sites)
        axes.set_title(_spent_in_words(privacy))
        axes.set_ylim(bottom=0)
        _named(axes, len(spent))
        _by_round(axes, "round")
        top = max(line[-1][1] for line in spent)
        return kept(figure, "epsilon", f"Epsilon by round, {top:.3g} at most.")


def _spent_in_words(privacy: Row) -> str:
    """Return the title: how much of what, and with whose eyes it is seen."""
    text = f"Epsilon spent at each site, at delta = {privacy['delta']:g}"
    said = privacy.get("promises") or ()
    return f"{text}, against outsiders and aggregators" if len(said) > 1 else text


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


def _points(name: str, rounds: Sequence[Row], summary: Row) -> list[tuple[int, float]]:
    points = [
        (int(row["round"]) - 1, float(row[name]))
        for row in rounds
        if _finite(row.get(name))
    ]
    final = (summary.get("final") or {}).get(name)
    if _finite(final) and rounds:
        points.append((max(int(row["round"]) for row in rounds), float(final)))
    return points


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _curve(axes: Axes, name: str, points: Sequence[tuple[int, float]]) -> None:
    steps, values = zip(*points, strict=True)
    marker = "o" if len(points) <= 40 else None
    axes.plot(
        steps, values, color=SERIES[0], marker=marker, label="this run", clip_on=False
    )
    axes.annotate(
        f"{values[-1]:.1%}" if name == "accuracy" else f"{values[-1]:.3g}",
        (steps[-1], values[-1]),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold",
        color=SERIES[0],
    )
    axes.set_title(f"{name.capitalize()} on the sites' test rows")
    if name == "accuracy":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axes.set_ylim(0, 1.05 * max(values) or 1)
    axes.margins(x=0.09)
    _by_round(axes, "rounds completed")


def _baselines(axes: Axes, baseline: Row, last: int) -> None:
    """Draw what is known, up to the last step only: right of it stands the figure."""
    present = 0
    for i, (key, label) in enumerate(BASELINES, 1):
        if baseline.get(key) is None:
            continue
        value, present = float(baseline[key]), present + 1
        text = f"{label} {value:.1%}"
        axes.plot(
            [0, last],
            [value, value],
            color=SERIES[i],
            linestyle=DASHES[i],
            linewidth=1.4,
            label=text,
        )
    if present:
        axes.legend(loc="lower right")


def _steps(
    axes: Axes, index: int, line: Sequence[tuple[int, float]], sites: Sequence[str]
) -> None:
    label = sites[0] if len(sites) == 1 else f"{len(sites)} sites alike"
    if 1 < len(sites) <= 4:
        label = ", ".join(sites)
    axes.plot(
        [0, *(number for number, _ in line)],
        [0.0, *(epsilon for _, epsilon in line)],
        color=SERIES[index % len(SERIES)],
        linestyle=DASHES[index % len(DASHES)],
        marker="o" if len(line) <= 40 else None,
        label=f"{label}: {line[-1][1]:.3f}",
        clip_on=False,
    )


def _named(axes: Axes, lines: int) -> None:
    """Name the lines where they hide nothing; too many are named by the table only."""
    if lines <= 3:
        axes.legend(loc="upper left", ncols=3)
    elif lines <= 12:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


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


def _by_round(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(label)
    axes.grid(axis="y")


def kept(figure: Figure, name: str, alt: str) -> Picture:
    """Return a figure drawn in `STYLE` in both of its forms."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, facecolor="#ffffff")
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    text = svg.getvalue().replace("*{stroke-linejoin", _DARK + "*{stroke-linejoin", 1)
    inks = ((INK, "ink"), (MUTED, "muted"), (LINE, "line"), (PAPER, "paper"))
    for color, variable in inks:
        text = text.replace(f": {color}", f": var(--{variable})")
    text = text.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    return Picture(name, alt, png.getvalue(), text.encode())
