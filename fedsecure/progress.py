"""A run as it happens, for a person at a terminal; plain lines when it is not one."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsecure.backends import Event
from fedsecure.summary import pooled
from fedsecure.update import JSON


class Progress:
    """Prints a line for each event worth one.

    Parameters
    ----------
    console : Console
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parameters = 0
        self._killed: float | None = None
        self._epsilons: list[float] = []
        self._promise = ""
        self._scheme = ""

    def show(self, event: Event) -> None:
        """Print what the event means."""
        name = str(event["event"])
        handler = getattr(self, f"_on_{name}", None)
        if handler is not None:
            handler(event)

    def _on_plan(self, event: Event) -> None:
        self._scheme = str(event["scheme"])
        self._epsilons = [_number(e) for e in _list(event["epsilons"])]
        relation = str(event.get("relation", "")).replace("_", "-")
        self._promise = f"{relation} at δ {_number(event['delta']):g}"
        self._line("plan", str(event["text"]), "bold")

    def _on_warned(self, event: Event) -> None:
        self._line("WARNING", str(event["text"]), "bold yellow")

    def _on_processes(self, event: Event) -> None:
        text = f"{event['started']} daemons are starting; the first round follows in "
        self._line("start", text + "half a minute or so")

    def _on_leader(self, event: Event) -> None:
        text = f"{event['holder']} leads, term {event['term']}"
        if self._killed is not None:
            text += f" · {_number(event['now']) - self._killed:.2f} s after the kill"
        self._line("leader", text, "bold green")

    def _on_began(self, event: Event) -> None:
        self._parameters = int(_number(event["parameters"]))
        self._line(
            "key",
            f"{event['custodian']} made the run key and the first model "
            f"({self._parameters:,} parameters); the aggregators cannot open it",
        )

    def _on_resumed(self, event: Event) -> None:
        reused = ", ".join(str(s) for s in _list(event["reused"])) or "nothing"
        text = f"round {event['round']} goes on; already accepted and kept: {reused}"
        self._line("resume", text, "green")

    def _on_update(self, event: Event) -> None:
        size = _number(event["bytes"]) / 1024
        text = f"round {event['round']}: {event['site']}'s update is accepted"
        self._line("", f"{text} ({size:,.0f} KiB, {self._scheme})", "dim")

    def _on_rejected(self, event: Event) -> None:
        text = f"round {event['round']}: {event['site']} is asked again or left out"
        self._line("reject", f"{text} ({event['code']})", "yellow")

    def _on_kill(self, event: Event) -> None:
        self._killed = _number(event["now"])
        self._line(
            "KILL",
            f"SIGKILL to {event['victim']} in mid-round {event['round']}: SuperLink, "
            "ServerApp and all",
            "bold white on red",
        )

    def _on_lost(self, event: Event) -> None:
        self._line("lost", f"term {event['term']} ended: {event['reason']}", "yellow")

    def _on_skipped(self, event: Event) -> None:
        self._line("skip", f"round {event['round']}: too few contributors", "yellow")

    def _on_released(self, event: Event) -> None:
        number, sites = int(_number(event["round"])), len(_list(event["participants"]))
        text = (
            f"round {number} · term {event['term']} ({event['source']}) · {sites} sites"
        )
        text += _scores(event["metrics"], "model before it: ")
        if self._epsilons:
            spent = self._epsilons[min(number, len(self._epsilons)) - 1]
            text += f" · ε {spent:.2f} {self._promise}"
        text += f" · {self._rate(event, sites)} · {_number(event['seconds']):.1f} s"
        if self._killed is not None:
            text += f" · {_number(event['now']) - self._killed:.1f} s after the kill"
            self._killed = None
        self._line("round", text, "cyan")

    def _on_finished(self, event: Event) -> None:
        text = "every site has the last model" + _scores(event["metrics"], "")
        self._line("done", text, "bold green")

    def _rate(self, event: Event, sites: int) -> str:
        per = max(sites, 1) * max(self._parameters, 1)
        up, down = (_number(event[k]) / per for k in ("received_bytes", "sent_bytes"))
        return f"{up:.1f} B/parameter up, {down:.1f} down"

    def _line(self, head: str, text: str, style: str = "") -> None:
        # Two columns, so that a long line hangs under its own text.
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=7, justify="right")
        grid.add_column()
        grid.add_row(Text(head, style="bold"), Text(text, style=style))
        self._console.print(grid)


def closing_lines(folder: Path) -> list[tuple[str, str]]:
    """Return what a finished run comes down to, from its ``summary.json``."""
    facts = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    final, base, privacy = facts["final"], facts["baseline"], facts["privacy"]
    lines = [
        (
            "accuracy",
            f"{_percent(final['accuracy'])}{_noisy(final)} with the protection on",
        ),
        ("same, unprotected", _percent(base["unprotected_accuracy"])),
        ("centralised", _percent(base["centralised_accuracy"])),
    ]
    if base.get("local_noise_accuracy") is not None:
        local = f"{_percent(base['local_noise_accuracy'])} at the same ε, noise of each"
        lines.insert(1, ("local noise", f"{local} site's own in place of shares"))
    lines += [_epsilon(row, privacy) for row in privacy["promises"]]
    if not privacy["promises"]:
        lines.append(("ε", "none: no differential privacy is promised"))
    if privacy.get("warning"):
        lines.append(("WARNING", privacy["warning"]))
    lines.append(("hidden by", _hiding(facts["encryption"])))
    lines += [("fail-over", _failover(f)) for f in facts["failovers"]]
    lost = f"{facts['rounds_lost']} completed rounds, {facts['updates_lost']} updates"
    lines.append(("lost", lost))
    owners = ", ".join(f"{o} {n} lines" for o, n in facts["ledgers"].items())
    verdict = "all verified" if facts["ledgers_verified"] else "NOT all verified"
    lines.append(("ledgers", f"{verdict}: {owners}"))
    lines.append(("report", str(folder / "report.html")))
    return lines


def _epsilon(row: Mapping[str, Any], privacy: Mapping[str, Any]) -> tuple[str, str]:
    about = f"δ {privacy['delta']:g}, {privacy['relation'].replace('_', '-')}"
    beside = f"{row['accountant']}; nominal PLD {row['nominal_pld']:.2f}"
    return f"ε {row['epsilon']:.2f}", f"against {row['against']} ({about}, {beside})"


def _hiding(found: Mapping[str, Any]) -> str:
    masks = "no masks"
    if found["masking"] != "none":
        count = found["masking_threshold"]
        masks = f"{found['masking']} masks, opened by {count} sites"
    layers = found.get("encrypt_layers")
    only = f" of {', '.join(layers)} only" if layers else ""
    return (
        f"{found['scheme']}{only} with {masks}; profile {found['profile']}, "
        f"downlink {found['downlink']}"
    )


def _failover(facts: Mapping[str, Any]) -> str:
    later = facts["seconds_to_next_round"]
    after = "no round since" if later is None else f"{later:.1f} s to the next round"
    return (
        f"term {facts['term_before']} to {facts['term_after']}: "
        f"{facts['seconds_to_leader']:.2f} s to a new leader, {after}; "
        f"{facts['updates_reused']} accepted updates kept, "
        f"{facts['updates_redone']} redone"
    )


def _noisy(final: Mapping[str, Any]) -> str:
    noise = final.get("accuracy_noise")
    return "" if noise is None else f" ± {100 * noise:.1f} points of noise"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep logs of libraries and of refusals off the terminal; daemons keep theirs."""
    # Flower sets its own logger's level when it is imported: a level would not hold.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _scores(metrics: JSON, prefix: str) -> str:
    found: Mapping[str, JSON] = pooled(metrics)
    if "accuracy_noise" in found:
        accuracy, noise = (_number(found[k]) for k in ("accuracy", "accuracy_noise"))
        return f" · {prefix}accuracy {accuracy:.1%} ± {100 * noise:.1f} points of noise"
    if "accuracy" in found:
        accuracy, loss = _number(found["accuracy"]), _number(found["loss"])
        return f" · {prefix}accuracy {accuracy:.1%}, loss {loss:.3f}"
    if "loss" in found:
        return f" · {prefix}loss {_number(found['loss']):.4f}"
    return ""


def _number(value: JSON) -> float:
    return float(str(value))


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []
