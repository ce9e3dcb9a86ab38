"""The pictures of a run: what it learned and what it spent.

Each is drawn once and kept twice: as PNG on white, and as SVG whose ink follows the
reader's light or dark setting. One style for all; colour never tells anything alone.
"""

import io
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
                _deviations(axes, points, _points("accuracy_noise", rounds, summary))
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


def _deviations(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    noise: Sequence[tuple[int, float]],
) -> None:
    """Draw one deviation of the noise on counts around each point that has it."""
    wide = dict(noise)
    if not wide:
        return
    known = [(step, value, wide[step]) for step, value in points if step in wide]
    steps, values, bars = zip(*known, strict=True)
    axes.errorbar(
        steps, values, yerr=bars, fmt="none", ecolor=SERIES[0], capsize=2.5, alpha=0.6
    )
    axes.set_title("Accuracy by noisy counts, with one deviation of the noise")


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
