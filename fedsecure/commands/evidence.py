"""Commands on a member's own diary and budget."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedsecure.commands.options import KitOption

_MARKS = {"passed": "green", "inconclusive": "yellow", "failed": "bold red"}
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


@ledger_app.command("clock")
def ledger_clock(kit: KitOption) -> None:
    """Say that a site's clock is right, after it once ran ahead; its node is down."""
    from fedsecure.assembly.clockset import accept_clock
    from fedsecure.clock import SystemClock

    time = accept_clock(kit, SystemClock())
    typer.echo(f"the ledger of {kit} has a line clock.set of {time}: times count anew")


@privacy_app.command("report")
def privacy_report(kit: KitOption) -> None:
    """Print what a site's data sets have spent, by run; stays at the site."""
    from fedsecure.assembly.privacy_report import spending

    table = Table("data set", "run", "rounds", "ε", "δ", "relation")
    for row in spending(kit):
        table.add_row(*row)
    Console().print(table)


@privacy_app.command("audit")
def privacy_audit(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the report.")],
    tier: Annotated[
        str, typer.Option(help="Which tiers, with commas between.")
    ] = "1,2,3",
) -> None:
    """Put this installation's privacy to the test; 0 only if every check passed.

    Ends with 1 if a claim is contradicted or a check shows nothing.
    """
    from datetime import UTC, datetime

    from fedsecure.audit.finding import Tier, Verdict, worst
    from fedsecure.audit.programme import PLAN, read_tiers, run_audit
    from fedsecure.audit.report import write_audit
    from fedsecure.learning.training import SystemRandom

    console = Console()

    def show(found: Tier) -> None:
        console.print(f"[bold]Tier {found.number}: {found.title}[/]")
        for check in found.checks:
            mark = f"[{_MARKS[check.verdict]}]{check.verdict:12}[/]"
            console.print(f"  {mark} {check.name}: {check.said}")

    tiers = run_audit(read_tiers(tier), SystemRandom(), show)
    page = write_audit(out, tiers, PLAN, datetime.now(UTC))
    verdict = worst([found.verdict for found in tiers])
    console.print(f"[{_MARKS[verdict]}]{verdict}[/]: {page}", soft_wrap=True)
    if verdict is not Verdict.PASSED:
        raise typer.Exit(1)


@privacy_app.command("certificate")
def privacy_certificate(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run's folder; or a run's name with --kit; with --verify a file too."
        ),
    ],
    kit: Annotated[
        Path | None,
        typer.Option("--kit", help="Of the site or aggregator that signs."),
    ] = None,
    audit: Annotated[
        Path | None, typer.Option("--audit", help="audit.json of `privacy audit`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; else the run's.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--verify", help="Check a certificate and compute it again."),
    ] = False,
) -> None:
    """Certify in writing what a run promised, to whom, and what it did not."""
    from datetime import UTC, datetime

    from fedsecure.certificate.issue import issue, verify

    if check:
        found = verify(run, kit)
        who, where = found.certificate.member, found.certificate.roster.federation
        typer.echo(f"{run}: signed by {who.role} {who.name} of federation {where}")
        typer.echo("every epsilon follows from the events that are listed:")
        said = found.said
    else:
        made = issue(run, datetime.now(UTC), kit=kit, audit=audit, out=out)
        said = (*made.said, str(made.file), str(made.page))
    for line in said:
        typer.echo(line)
