"""What a run leaves to read: summary.json, metrics.jsonl, report.html and pictures.

The page is one file: its style and pictures are inside it, it holds no script and asks
no other machine for anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from fedsecure.pages import cards, document, image, items, section, table
from fedsecure.pictures import (
    BASELINES,
    Picture,
    epsilon_picture,
    learning_picture,
)
from fedsecure.protection import encryption_section, epsilon_card, privacy_section
from fedsecure.timeline import timeline_picture

Row: TypeAlias = Mapping[str, Any]
"""One line of the rounds, of the timeline, or a section of the summary."""
_NONE = "n/a"
_NO_METRICS = "No metrics left the sites (privacy.metrics=none)."
_NO_ROWS = (
    "The sites' noisy counts of test rows add up to no rows: the noise is wider than "
    "the rows are many (privacy.metrics=dp)."
)
_COUNTS = (
    "Counts of test rows with noise (privacy.metrics=dp) are added up over the sites."
)


def write_report(
    folder: Path, summary: Row, rounds: Sequence[Row], timeline: Sequence[Row]
) -> Path:
    """Write all that is read of a run into its folder, and return the page's path.

    Parameters
    ----------
    folder : Path
        The run's folder; it exists.
    summary : Mapping
        The run's figures; written to ``summary.json`` as they are.
    rounds : sequence of Mapping
        One row per round: round, term, leader, participants, loss, accuracy (of the
        model the round started from), epsilon by site, bytes per parameter up and
        down, seconds, started, ended (seconds since the first event); written to
        ``metrics.jsonl``.
    timeline : sequence of Mapping
        Events worth a mark: at (seconds), event, name, term, round.

    Returns
    -------
    Path
        Of ``report.html``.
    """
    (folder / "summary.json").write_text(_json(summary, 2) + "\n", encoding="utf-8")
    lines = "".join(_json(row) + "\n" for row in rounds)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    drawn = {
        "accuracy": learning_picture(rounds, summary),
        "epsilon": epsilon_picture(rounds, summary["privacy"]),
        "timeline": timeline_picture(rounds, timeline),
    }
    for picture in drawn.values():
        if picture is not None:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    page = folder / "report.html"
    page.write_text(report_page(summary, rounds, drawn), encoding="utf-8")
    return page


def report_page(
    summary: Row, rounds: Sequence[Row], drawn: Mapping[str, Picture | None]
) -> str:
    """Return the report as one HTML document."""
    title = f"fedsecure run {escape(str(summary['run_id']))}"
    body = "\n".join(
        (
            _header(title, summary),
            _cards(summary),
            section("Learning", _learning(summary, drawn.get("accuracy"))),
            section(
                "Privacy", privacy_section(summary["privacy"], drawn.get("epsilon"))
            ),
            section("Encryption", encryption_section(summary)),
            section("Survival", _survival(summary, drawn.get("timeline"))),
            section("Rounds", _rounds_table(rounds)),
            section("Ledgers", _ledgers(summary)),
            section(
                "What this report does not promise",
                items(str(note) for note in summary.get("notes", ())),
            ),
            (
                "<footer>The same figures, for programs: <code>summary.json</code>, "
                "<code>metrics.jsonl</code>, <code>resolved.yaml</code>.</footer>"
            ),
        )
    )
    return document(title, body)


def _header(title: str, summary: Row) -> str:
    facts = (
        f"backend {summary['backend']}",
        f"encryption {summary['scheme']}",
        f"privacy {summary['privacy']['mode']}",
        f"{summary['parameters']:,} parameters",
        f"{summary['seconds']:,.0f} seconds",
    )
    return (
        f"<header>\n<h1>{title}</h1>\n<p>{escape(' · '.join(facts))}</p>\n"
        f'<p class="verdict">{escape(_verdict(summary))}</p>\n</header>'
    )


def _verdict(summary: Row) -> str:
    done, planned = summary["rounds_completed"], summary["rounds_planned"]
    kept = (
        "no completed round and no accepted update was lost"
        if not summary["rounds_lost"] and not summary["updates_lost"]
        else f"{summary['rounds_lost']} completed rounds and "
        f"{summary['updates_lost']} accepted updates were LOST"
    )
    count = len(summary["failovers"])
    changes = {0: "the leader stayed", 1: "the leader changed once"}.get(
        count, f"the leader changed {count} times"
    )
    return f"{done} of {planned} rounds were completed; {changes}; {kept}."


def _cards(summary: Row) -> str:
    final, baseline = summary["final"], summary["baseline"]
    privacy, failovers = summary["privacy"], summary["failovers"]
    known = [
        f"{label} {_share(baseline[key])}"
        for key, label in BASELINES
        if baseline.get(key) is not None
    ]
    beside = ", ".join(known) or "no baseline was run"
    entries = [
        (
            "Final accuracy",
            _share(final.get("accuracy")),
            "; ".join(part for part in (_noise(final), beside) if part),
        ),
        epsilon_card(privacy),
        (
            "Rounds completed",
            f"{summary['rounds_completed']} of {summary['rounds_planned']}",
            f"{summary['sites']} sites, {summary['aggregators']} aggregators",
        ),
        _failover_card(failovers),
        (
            "Bytes up per parameter",
            _figure(summary["uplink_bytes_per_parameter"]),
            (
                f"{_figure(summary['downlink_bytes_per_parameter'])} down; "
                "a plain float32 model: 4"
            ),
        ),
        (
            "Ledgers",
            *_ledger_card(summary),
        ),
    ]
    return cards(entries)


def _failover_card(failovers: Sequence[Row]) -> tuple[str, str, str]:
    if not failovers:
        return "Failovers", "0", "the first leader led to the end"
    slowest = max(float(row["seconds_to_leader"]) for row in failovers)
    after = [
        float(row["seconds_to_next_round"])
        for row in failovers
        if row["seconds_to_next_round"] is not None
    ]
    note = (
        f"{max(after):.2f} s to the next completed round" if after else "no round since"
    )
    return "Seconds to a new leader", f"{slowest:.2f}", note


def _ledger_card(summary: Row) -> tuple[str, str]:
    lines = summary.get("ledgers", {})
    note = f"{sum(lines.values()):,} lines of {len(lines)} parties"
    if not summary["ledgers_verified"]:
        return '<span class="bad">BROKEN</span>', note
    if not lines:
        return "none", "no ledger was there to verify"
    return '<span class="good">verified</span>', note


def _learning(summary: Row, picture: Picture | None) -> str:
    counts = summary["privacy"].get("counts")
    if picture is None:
        return f"<p>{_NO_ROWS if counts else _NO_METRICS}</p>"
    how = "Sites are weighted by their test rows."
    if counts:
        wide = _noise(summary["final"]) or "noise alone"
        how = f"{_COUNTS} The last point: {wide}, one standard deviation."
    return (
        "<p>Each round evaluates the model it starts from at every site, before "
        f"training it; the last point is the final evaluation. {how}</p>\n"
        f"{image(picture)}\n{_beside(summary)}"
    )


def _beside(summary: Row) -> str:
    """Return the final accuracy beside its baselines; nothing if none was run."""
    own, baseline = summary["final"].get("accuracy"), summary["baseline"]
    known = [(label, baseline.get(key)) for key, label in BASELINES]
    if own is None or all(value is None for _, value in known):
        return ""
    rows = [("this run", _share(own), "")] + [
        (
            label,
            _share(value),
            _NONE if value is None else f"{100 * (value - own):+.1f}",
        )
        for label, value in known
    ]
    return table(("", "final accuracy", "points from this run"), rows, numbers={1, 2})


def _survival(summary: Row, picture: Picture | None) -> str:
    rows = (
        (
            f"{row['term_before']} to {row['term_after']}",
            _seconds(row["seconds_to_leader"]),
            _seconds(row["seconds_to_next_round"]),
            str(row["updates_reused"]),
            str(row["updates_redone"]),
        )
        for row in summary["failovers"]
    )
    heads = (
        "term",
        "to a new leader",
        "to the next completed round",
        "accepted updates reused",
        "updates asked for again",
    )
    told = table(heads, rows, numbers={1, 2, 3, 4}) if summary["failovers"] else ""
    return f"{image(picture) if picture else ''}\n{told}"


def _rounds_table(rounds: Sequence[Row]) -> str:
    heads = (
        "round",
        "term",
        "leader",
        "sites",
        "accuracy",
        "loss",
        "largest epsilon",
        "bytes up",
        "bytes down",
        "seconds",
    )
    rows = (
        (
            str(row["round"]),
            str(row["term"]),
            str(row["leader"]),
            _sites(row["participants"]),
            _share(row.get("accuracy")),
            _figure(row.get("loss")),
            f"{max(row['epsilon'].values()):.3f}" if row.get("epsilon") else _NONE,
            _figure(row["uplink_bytes_per_parameter"]),
            _figure(row["downlink_bytes_per_parameter"]),
            f"{row['seconds']:.2f}",
        )
        for row in rounds
    )
    note = (
        "<p>Accuracy and loss in the row of round r are of the model after round "
        "r - 1, from which round r started. Bytes are per parameter and site.</p>"
    )
    return note + table(heads, rows, numbers={0, 1, 4, 5, 6, 7, 8, 9})


def _sites(participants: Sequence[str]) -> str:
    if len(participants) > 4:
        return f"{len(participants)} sites"
    return ", ".join(participants)


def _ledgers(summary: Row) -> str:
    if summary["ledgers_verified"] and not summary.get("ledgers"):
        return "<p>No ledger was there to verify.</p>"
    said = (
        '<p class="good">Every line of every ledger follows from the one before it, '
        "and its owner signed it.</p>"
        if summary["ledgers_verified"]
        else '<p class="bad">At least one ledger does not verify; see below.</p>'
    )
    lines = sorted(summary.get("ledgers", {}).items())
    return said + table(
        ("owner", "lines verified"), ((o, f"{n:,}") for o, n in lines), numbers={1}
    )


def _noise(final: Row) -> str:
    """Return how far noise in counts moves the final accuracy; nothing: it has none."""
    noise = final.get("accuracy_noise")
    return "" if noise is None else f"± {100 * noise:.1f} points of noise"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _figure(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f} s"


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    """Return the value with null for every NaN and Inf: JSON knows neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
