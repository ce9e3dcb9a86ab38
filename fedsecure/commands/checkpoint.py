"""Commands on checkpoints: list, verify, restore, export, gc."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fedsecure.assembly.checkpoints import Desk

checkpoint_app = typer.Typer(
    no_args_is_help=True, help="What the stores hold of a run, and whether it is good."
)

_Kit = Annotated[Path, typer.Argument(help="An aggregator's kit.")]
_LAST_HOPE = (
    "bring back a store that was away, or unpack an export into one (`tar -xf`), and "
    "repeat. Without either the run ends here: sites keep their models, begin a new run"
)


@checkpoint_app.command("list")
def checkpoint_list(kit: _Kit) -> None:
    """Print every release the stores hold, and on how many of them it lies."""
    from fedsecure.assembly.checkpoints import open_desk, rows

    desk = open_desk(kit)
    table = _table("run", "round", "number", "time", "writer", "bytes", "copies")
    for row in rows(desk):
        copies = f"{row.copies} of {row.stores}"
        numbers = (str(row.round), str(row.sequence), row.time, row.writer)
        table.add_row(row.run, *numbers, str(row.size), copies)
    Console().print(table)
    for place, why in desk.inventory.silent.items():
        typer.echo(f"{desk.name(place)} could not be asked: {why}", err=True)
    _tell_gaps(desk)


@checkpoint_app.command("verify")
def checkpoint_verify(kit: _Kit) -> None:
    """Read every copy on every store and open it; exit 1 if any is not good."""
    from fedsecure.assembly.checkpoints import faults, open_desk

    desk = open_desk(kit)
    table, bad, doubted = _table("store", "key", "kind", "what"), 0, 0
    for fault in faults(desk):
        table.add_row(fault.store, fault.key, fault.kind, fault.why)
        doubted += fault.kind == "roster"
        bad += fault.kind != "roster"
    releases = sum(len(c.links) for c in desk.inventory.chains.values())
    if bad or doubted:
        Console(width=200).print(table)
    if doubted:
        typer.echo(
            f"{doubted} releases were not made as they say: copies are no help; the "
            "table says of each what is"
        )
    if bad:
        typer.echo(f"{bad} copies are not good; `fedsecure checkpoint restore {kit}`")
    if bad or doubted:
        raise typer.Exit(1)
    stores = len(desk.inventory.stores)
    typer.echo(f"every copy of {releases} releases on {stores} stores is good")


@checkpoint_app.command("restore")
def checkpoint_restore(
    kit: _Kit,
    engine: Annotated[
        bool,
        typer.Option(
            "--engine",
            help="Make a lost journal and head again, too; every aggregator stopped.",
        ),
    ] = False,
) -> None:
    """Bring every object back to all stores from any good copy; a repeat is no harm."""
    from fedsecure.assembly.checkpoints import note, open_desk, rebuild_engine, repair

    desk = open_desk(kit)
    made, lost, silent = 0, [], dict[str, str]()
    for looked, copies in repair(desk, silent):
        made += copies
        if not copies:
            lost.append(looked.key)
    noted = made == 0 or note(desk, "repaired", {"copies": made, "lost": len(lost)})
    typer.echo(f"{made} copies were made good")
    if not noted:
        typer.echo("the daemon has the ledger: only state/events.jsonl says so")
    for key in lost:
        typer.echo(f"{key}: no good copy on any store: {_LAST_HOPE}", err=True)
    for store, why in silent.items():
        typer.echo(
            f"{store} could not be asked, nothing was mended there: {why}: bring it "
            "back, and repeat",
            err=True,
        )
    if engine:
        rebuilt, term = rebuild_engine(desk)
        note(desk, "rebuilt", {"term": term, "rows": len(rebuilt.entries)})
        at = "nothing" if rebuilt.head is None else f"round {rebuilt.head.round}"
        typer.echo(
            f"the engine has {rebuilt.run} again: {at} released, term {term}. The open "
            "round's rows and skipped rounds are gone: sites send the same bytes again"
        )
    if _tell_gaps(desk) or lost or (silent and not engine):
        raise typer.Exit(1)


@checkpoint_app.command("gc")
def checkpoint_gc(
    kit: _Kit,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without, it is only shown.")
    ] = False,
) -> None:
    """Show what the rules of store.keep no longer keep, or remove it.

    Only complete runs, as a whole, and what nobody named for store.keep.grace_hours.
    """
    from datetime import UTC, datetime

    from fedsecure.assembly.checkpoints import open_desk
    from fedsecure.assembly.tidying import due, remove

    desk, now = open_desk(kit), datetime.now(UTC)
    steps, table = due(desk, now), _table("step", "key", "why")
    for step in steps:
        table.add_row(step.act, step.key, step.why)
    if steps:
        Console(width=200).print(table)
    if not apply:
        typer.echo(f"{len(steps)} steps are due; --apply does them")
        return
    typer.echo(f"{remove(desk, steps, now)} keys were removed from every store")


@checkpoint_app.command("export")
def checkpoint_export(
    kit: _Kit,
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    run: Annotated[
        str | None, typer.Option("--run", help="Which run; else the kit's own.")
    ] = None,
) -> None:
    """Write a run's sealed objects and manifests into one tar file, each verified.

    Another machine unpacks it into an empty store; there is no plaintext in it.
    """
    from fedsecure.assembly.checkpoints import open_desk
    from fedsecure.assembly.exporting import export_run

    desk = open_desk(kit)
    names = export_run(desk, run or desk.run, out)
    typer.echo(
        f"{out}: {len(names)} objects of run {run or desk.run}; `tar -xf` into an "
        "empty folder makes a store of it, `fedsecure checkpoint verify` reads it"
    )


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _tell_gaps(desk: "Desk") -> bool:
    """Print the runs of which a manifest is on no store; return whether there are."""
    gaps = dict(desk.inventory.broken)
    for run, chain in desk.inventory.chains.items():
        if chain.missing:
            gaps[run] = f"no store gives the manifest {chain.missing[:12]}"
    for run, why in sorted(gaps.items()):
        typer.echo(f"run {run} is not all here: {why}: {_LAST_HOPE}", err=True)
    return bool(gaps)
