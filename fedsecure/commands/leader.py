"""Commands on who leads: look, pause, resume, hand over."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

leader_app = typer.Typer(no_args_is_help=True, help="Who leads a run, and who may.")

_Kit = Annotated[Path, typer.Argument(help="An aggregator's kit.")]


@leader_app.command("show")
def leader_show(kit: _Kit) -> None:
    """Print who leads, under which term, and how far the run is; changes nothing."""
    from fedsecure.assembly.controls import is_paused
    from fedsecure.assembly.status import look

    grid = Table.grid(padding=(0, 2))
    for name, value in look(kit).items():
        grid.add_row(name, value)
    grid.add_row("paused here", "yes" if is_paused(kit) else "no")
    Console().print(grid)


@leader_app.command("pause")
def leader_pause(kit: _Kit) -> None:
    """Have an aggregator neither lead nor campaign until it is resumed."""
    from fedsecure.assembly.controls import pause

    typer.echo(
        f"{pause(kit)} is paused: if it led, another takes over where it stopped; "
        "`fedsecure leader resume` ends it"
    )


@leader_app.command("resume")
def leader_resume(kit: _Kit) -> None:
    """End an aggregator's pause."""
    from fedsecure.assembly.controls import resume

    typer.echo(f"{resume(kit)} may lead again")


@leader_app.command("handover")
def leader_handover(kit: _Kit) -> None:
    """Have the leader whose kit this is let another aggregator lead."""
    from fedsecure.assembly.controls import hand_over

    typer.echo(
        f"{hand_over(kit)} gives leadership up: another one goes on in the same round; "
        "if none does within three leases, it leads again"
    )
