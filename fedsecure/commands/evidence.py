"""Commands on a member's own diary and budget."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedsecure.commands.options import KitOption

ledger_app = typer.Typer(no_args_is_help=True, help="Signed, chained diaries.")
privacy_app = typer.Typer(no_args_is_help=True, help="Privacy budgets.")


@ledger_app.command("verify")
def ledger_verify(
    path: Annotated[
        Path, typer.Argument(help="ledger.jsonl", exists=True, dir_okay=False)
    ],
) -> None:
    """Verify every line of a ledger offline; name the first bad one."""
    from fedsecure.disk import SystemDisk
    from fedsecure.ledger import verify_ledger

    records = verify_ledger(path, SystemDisk())
    last = records[-1]
    typer.echo(f"{path}: {len(records)} lines verified, head {last.hash[:16]}")


@privacy_app.command("report")
def privacy_report(kit: KitOption) -> None:
    """Print what a site's data sets have spent, by run; stays at the site."""
    from fedsecure.assembly.privacy_report import spending

    table = Table("data set", "run", "rounds", "ε", "δ", "relation")
    for row in spending(kit):
        table.add_row(*row)
    Console().print(table)
