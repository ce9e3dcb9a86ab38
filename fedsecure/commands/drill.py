"""Commands that break a small federation on purpose and check what is promised."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fedsecure.drills.drill import Drill

drill_app = typer.Typer(
    no_args_is_help=True,
    help="Break a small federation of its own, and check that every promise is kept.",
)

_Repeat = Annotated[
    int, typer.Option("--repeat", min=1, max=1000, help="How often it is broken.")
]
_Json = Annotated[
    Path | None, typer.Option("--json", help="Write the results to this file too.")
]
_ABOUT = {
    "failover": "The leader's host is lost in mid-round: SIGKILL of all of it.",
    "pause": "The leader's host stands still beyond its lease, and comes back.",
    "partition": "The leader is cut off the engine, both ways, then one way (root).",
    "disk-full": "The disk of a store is full to the last byte (root).",
    "corrupt": "One bit of every copy in one store changes.",
    "store-loss": "One store is gone for good.",
    "clock": "The leader's clocks jump an hour on and back (libfaketime).",
    "restore": "A copy of one store is read elsewhere, by another aggregator.",
}
_FIGURES = (
    ("lead s", "seconds_to_leader"),
    ("upd s", "seconds_to_next_update"),
    ("rel s", "seconds_to_next_release"),
    ("kept", "updates_reused"),
    ("-r", "rounds_lost"),
    ("-u", "updates_lost"),
)


def _command(name: str, about: str) -> None:
    def carry_out(repeat: _Repeat = 1, out: _Json = None) -> None:
        from fedsecure.drills.catalogue import DRILLS

        _carry_out(name, DRILLS[name], repeat, out)

    drill_app.command(name, help=about)(carry_out)


def _carry_out(name: str, drill: "Drill", repeat: int, out: Path | None) -> None:
    from fedsecure.clock import SystemClock
    from fedsecure.drills.drill import kept, rehearse
    from fedsecure.progress import quiet

    missing = drill.missing()
    if missing:
        lines = "\n".join(f"  {each}" for each in missing)
        typer.echo(f"drill {name} cannot be carried out here:\n{lines}", err=True)
        raise typer.Exit(2)
    shown = []
    for number in range(1, repeat + 1):
        typer.echo(f"{name} {number} of {repeat} ...", err=True)
        with quiet():
            shown.append(rehearse(drill, SystemClock()))
        _timeline(number, shown[-1])
    Console().print(_table(name, shown))
    bad = _complain(shown)
    if out is not None:
        whole = {"drill": name, "about": _ABOUT[name], "repetitions": shown}
        out.write_text(f"{json.dumps(whole, indent=1)}\n", encoding="utf-8")
    good = sum(1 for each in shown if kept(each))
    typer.echo(f"{good} of {repeat} repetitions kept every promise")
    if bad or good < repeat:
        raise typer.Exit(1)


def _timeline(number: int, shown: Mapping[str, Any]) -> None:
    grid = Table.grid(padding=(0, 2))
    for row in shown["timeline"]:
        text = str(row["what"]).replace("[", r"\[")
        grid.add_row(f"{number}", f"{row['at']:8.3f} s", text)
    Console().print(grid)


def _table(name: str, shown: list[dict[str, Any]]) -> Table:
    caption = (
        "seconds from the fault to a new leader, the next update, the next release; "
        "updates reused; rounds and updates lost; I1 to I8, - if not looked at"
    )
    table = Table(title=f"drill {name}", caption=caption, padding=(0, 0))
    invariants = list(shown[0]["broken"])
    for heading in ("no.", *(title for title, _ in _FIGURES), *invariants, "other"):
        table.add_column(heading, justify="right")
    for number, each in enumerate(shown, 1):
        figures = [_figure(each[key]) for _, key in _FIGURES]
        marks = [_mark(each["broken"][i]) for i in invariants]
        other = _mark(each["promises"])
        table.add_row(str(number), *figures, *marks, other)
    return table


def _figure(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _mark(wrong: list[str] | None) -> str:
    if wrong is None:
        return "-"
    return "[red]BAD[/]" if wrong else "ok"


def _complain(shown: list[dict[str, Any]]) -> bool:
    """Print every broken promise; return whether there is one."""
    lines = [
        f"{number}: {name}: {text}"
        for number, each in enumerate(shown, 1)
        for name, texts in [*each["broken"].items(), ("promise", each["promises"])]
        for text in texts or ()
    ]
    for line in lines:
        typer.echo(line, err=True)
    return bool(lines)


for _name, _text in _ABOUT.items():
    _command(_name, _text)
