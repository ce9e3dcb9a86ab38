"""The pictures of an audit, in the style of a run's."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from fedsecure.pictures import ALARM, DASHES, INK, MUTED, SERIES, STYLE, Picture, kept
from fedsecure.update import Vector

_GATE = SERIES[2]
_WIDTH = 9.2


def noise_picture(
    total: Vector, ratios: Sequence[tuple[str, float, float]], gate: float
) -> Picture:
    """Return the noise of opened sums beside its law, and each share's variance.

    Parameters
    ----------
    total : Vector
        Opened sums in standard deviations.
    ratios : sequence of (str, float, float)
        Label, variance over the promised one, and the deviation of an honest ratio.
    gate : float
        How many of those deviations are allowed.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _histogram(left, total, 0)
        places = np.linspace(-4.5, 4.5, 200)
        left.plot(places, stats.norm.pdf(places), color=INK, linewidth=1.3)
        left.set_title("Opened sums of nothing")
        left.set_xlabel("promised standard deviations; line: the promise")
        _density(left)
        for i, (_, ratio, deviation) in enumerate(ratios):
            good = abs(ratio - 1) <= gate * deviation
            right.barh(i, 2 * gate * deviation, 0.56, 1 - gate * deviation, color=_GATE)
            right.plot(
                ratio,
                i,
                marker="o" if good else "X",
                markersize=7 if good else 11,
                color=INK if good else ALARM,
                linestyle="none",
            )
        right.patches[0].set_label("allowed")
        for bar in right.patches:
            bar.set_alpha(0.25)
        _ladder(right, [label for label, _, _ in ratios])
        right.axvline(1, color=MUTED, linewidth=1)
        right.set_title("Variance over the variance promised")
        right.set_xlabel("band: allowed at 99.9%")
        said = ", ".join(f"{label} {ratio:.3f}" for label, ratio, _ in ratios)
        return kept(figure, "audit-noise", f"Variance over the promised one: {said}.")


def worlds_picture(
    without: Vector,
    within: Vector,
    bounds: Sequence[tuple[str, float, float]],
    least: float,
) -> Picture:
    """Return both worlds of an example, and what they prove beside the claim.

    Parameters
    ----------
    without, within : Vector
        Trials, in standard deviations of the first world.
    bounds : sequence of (str, float, float)
        Adversary, proven and claimed epsilon.
    least : float
        Share of the claim below which a bound shows nothing.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _histogram(left, without, 0, "without the example")
        _histogram(left, within, 1, "with it")
        left.set_title("One field of the opened sum")
        left.set_xlabel("standard deviations of the noise")
        _density(left)
        left.legend(loc="upper left")
        left.set_ylim(top=1.3 * left.get_ylim()[1])
        for i, (_, bound, claim) in enumerate(bounds):
            share = bound / claim
            color = SERIES[0] if least <= share <= 1 else ALARM
            right.barh(i, share, 0.5, color=color)
            right.text(
                0.03,
                i,
                f"proven {bound:.2f} of {claim:.2f} claimed",
                va="center",
                color="#ffffff",
            )
        right.axvspan(least, 1, color=_GATE, alpha=0.2, linewidth=0)
        right.axvline(1, color=INK, linewidth=1.3)
        _ladder(right, [_broken(label) for label, _, _ in bounds])
        right.set_xlim(0, max(1.15, *(1.05 * b / c for _, b, c in bounds)))
        right.set_title("Epsilon proven, over epsilon claimed")
        right.set_xlabel(f"band: {least} to 1; beyond 1 the claim is false")
        said = "; ".join(f"{label}: {b:.3f} of {c:.3f}" for label, b, c in bounds)
        return kept(figure, "audit-mechanism", f"Epsilon proven of claimed. {said}.")


def curves_picture(curves: Sequence[tuple[str, Vector, Vector]], title: str) -> Picture:
    """Return ROC curves of membership scores.

    Parameters
    ----------
    curves : sequence of (str, Vector, Vector)
        Label, scores of members, scores of others.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        for i, (label, members, others) in enumerate(curves):
            x, y = _roc(members, others)
            left.plot(x, y, color=SERIES[i], linestyle=DASHES[i], label=label)
        left.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        left.set_aspect("equal")
        left.set_xlim(0, 1)
        left.set_ylim(0, 1)
        left.set_title(title)
        left.set_xlabel("others taken for members")
        left.set_ylabel("members found")
        left.legend(loc="lower right")
        for i, (_, members, others) in enumerate(curves):
            _mirrored(right, members, others, i)
        right.set_yticks([-2 * i for i in range(len(curves))], [c[0] for c in curves])
        right.tick_params(axis="y", length=0, labelcolor=INK)
        right.set_xticks([])
        right.spines["left"].set_visible(False)
        right.set_title("Members above the line, others below")
        right.set_xlabel("from high loss to low loss")
        return kept(figure, "audit-membership", f"{title}; see the table.")


def digits_picture(rows: Sequence[tuple[str, NDArray[np.floating]]]) -> Picture:
    """Return rows of small pictures: the originals, and what was made of updates.

    Parameters
    ----------
    rows : sequence of (str, array)
        Label, and pictures of shape (n, height, width), 0 for ink-less.
    """
    count = len(rows[0][1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 1.12 * len(rows)), layout="constrained")
        cells = figure.subplots(len(rows), count, squeeze=False)
        for line, (label, pictures) in enumerate(rows):
            for i, picture in enumerate(pictures):
                axes = cells[line, i]
                axes.imshow(picture, cmap="Greys", vmin=0, vmax=1)
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[["top", "right"]].set_visible(True)
            cells[line, 0].set_ylabel(
                label, rotation=0, ha="right", va="center", color=INK, labelpad=8
            )
        said = "; ".join(label.replace("\n", " ") for label, _ in rows)
        return kept(figure, "audit-inversion", f"Rows of digits: {said}.")


def _histogram(axes: Axes, values: Vector, series: int, label: str = "") -> None:
    low, high = min(-4.5, float(values.min())), max(4.5, float(values.max()))
    axes.hist(
        np.clip(values, max(low, -9), min(high, 9)),
        bins=80,
        density=True,
        color=SERIES[series],
        alpha=0.55,
        label=label or None,
    )


def _mirrored(axes: Axes, members: Vector, others: Vector, line: int) -> None:
    """Draw two histograms over one line, the second upside down."""
    both = np.concatenate([members, others])
    low, high = (float(end) for end in np.quantile(both, (0.005, 0.995)))
    bins = np.linspace(low, high, 31)
    counts = [np.histogram(part, bins)[0] for part in (members, others)]
    scale = 0.85 / max(int(max(count.max() for count in counts)), 1)
    places = np.linspace(0, 1, 31)[:-1]
    for sign, count, alpha in ((1, counts[0], 0.8), (-1, counts[1], 0.4)):
        axes.bar(
            places,
            sign * scale * count,
            1 / 30,
            -2 * line,
            align="edge",
            color=SERIES[line],
            alpha=alpha,
        )


def _density(axes: Axes) -> None:
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _ladder(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)


def _broken(label: str) -> str:
    """Return a label on two lines."""
    words = label.split()
    half = (len(words) + 1) // 2
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _roc(members: Vector, others: Vector) -> tuple[Vector, Vector]:
    places = np.sort(np.concatenate([members, others]))[::-1]
    ends = [0.0], [1.0]
    x = 1 - np.searchsorted(np.sort(others), places, side="left") / len(others)
    y = 1 - np.searchsorted(np.sort(members), places, side="left") / len(members)
    return np.concatenate([ends[0], x, ends[1]]), np.concatenate([ends[0], y, ends[1]])
