"""Commands on key-encryption keys: make, show, rewrap."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

kek_app = typer.Typer(
    no_args_is_help=True, help="The keys that the keys of checkpoints are sealed under."
)

_Kit = Annotated[Path, typer.Argument(help="An aggregator's kit.")]


@kek_app.command("make")
def kek_make(kit: _Kit) -> None:
    """Make the key that aggregator.json names, in its token; never over another one."""
    from fedsecure.assembly.rekeying import make_key

    made = make_key(kit)
    typer.echo(f"{made.where}: {made.id}, made; it never leaves the token")
    typer.echo(
        "objects that are there stay under their old key: `fedsecure kek rewrap KIT`, "
        "with every aggregator stopped"
    )


@kek_app.command("show")
def kek_show(
    kit: _Kit,
    retry_pin: Annotated[
        bool,
        typer.Option(
            "--retry-pin", help="Try the PIN once though the last one was wrong."
        ),
    ] = False,
) -> None:
    """Print the keys of an aggregator, after logging in to each token."""
    from fedsecure.assembly.rekeying import shown

    table = Table(box=None)
    for column in ("key", "where", "what it does"):
        table.add_column(column, overflow="fold")
    for row in shown(kit, retry_pin=retry_pin):
        table.add_row(row.id, row.where, row.use)
    Console(width=200).print(table)


@kek_app.command("rewrap")
def kek_rewrap(kit: _Kit) -> None:
    """Bring every object on every store under the present key; aggregators stopped.

    The data stays as it is. Interrupted, it is repeated.
    """
    from fedsecure.assembly.checkpoints import note, open_desk
    from fedsecure.assembly.rekeying import rewrap, rounds_before

    desk = open_desk(kit)
    objects, copies, unfit = 0, 0, []
    for one in rewrap(desk):
        objects += one.copies > 0
        copies += one.copies
        if one.why:
            unfit.append(one)
    keys = sorted(desk.inventory.judge.rack.closing)
    note(desk, "rewrapped", {"copies": copies, "left": len(unfit), "keys": [*keys]})
    typer.echo(f"{copies} copies of {objects} objects are under {', '.join(keys)} now")
    for number in rounds_before(desk):
        typer.echo(
            f"round {number} is open, its own key under the earlier one: keep that in "
            "kek_before until the round is published; a kit's own key always opens"
        )
    for one in unfit:
        typer.echo(f"{one.key} was left as it is: {one.why}", err=True)
    if unfit:
        raise typer.Exit(1)
