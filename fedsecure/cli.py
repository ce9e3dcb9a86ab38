"""The commands. Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused.

The only file with imports inside functions: `fedsecure --help` must not import torch.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedsecure import __version__
from fedsecure.errors import FedsecureError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Private, encrypted, survivable federated learning on Flower.",
)
ledger_app = typer.Typer(no_args_is_help=True, help="Signed, chained diaries.")
privacy_app = typer.Typer(no_args_is_help=True, help="Privacy budgets.")
policy_app = typer.Typer(no_args_is_help=True, help="What a site lets a run do.")
data_app = typer.Typer(no_args_is_help=True, help="A site's own data.")
app.add_typer(ledger_app, name="ledger")
app.add_typer(privacy_app, name="privacy")
app.add_typer(policy_app, name="policy")
app.add_typer(data_app, name="data")

KitOption = Annotated[
    Path, typer.Option("--kit", help="Start-up kit: a folder that provision made.")
]
_MARKS = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}


def main() -> None:
    """Run the command line; every error of ours is one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except FedsecureError as bad:
        Console(stderr=True).print(f"[bold red]fedsecure:[/] {_escaped(str(bad))}")
        sys.exit(bad.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedsecure {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides, such as privacy=example_local seed=8."),
    ] = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Sweep: seed=1,2,3 runs three.")
    ] = False,
    cfg: Annotated[
        str | None, typer.Option("--cfg", help="'job' prints the configuration.")
    ] = None,
) -> None:
    """Run an experiment; the last line printed is the path of its run folder.

    Groups: data model train privacy encryption federation backend store lease
    experiment. Try: fedsecure run backend=inprocess privacy=example_local
    """
    from fedsecure.composition import composed, shown, swept

    chosen = overrides or []
    if cfg not in {None, "job"}:
        raise typer.BadParameter("--cfg knows only 'job'")
    if cfg == "job":
        typer.echo(shown(composed(chosen)))
        return
    for one in swept(chosen) if multirun else [chosen]:
        folder = _run(one)
        typer.echo(str(folder))


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides on top of the demo.")
    ] = None,
) -> None:
    """A federation of real processes that loses its leader in mid-round, and goes on.

    Three sites, two aggregators, TLS and node keys on every connection, differential
    privacy and encrypted aggregation on. Under five minutes on two cores.
    """
    folder = _run(["experiment=demo", *(overrides or [])])
    _tell(folder)
    typer.echo(str(folder))


@app.command()
def provision(
    description: Annotated[Path, typer.Argument(help="federation.yaml")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of all kits.")],
) -> None:
    """Make an offline authority and one start-up kit a member; again adds new ones."""
    from fedsecure.provision.kits import provision as make

    done = make(description, out, datetime.now(UTC))
    version = done.roster.version
    if not done.added:
        typer.echo(f"nothing new: roster {version} in {out} stands")
        return
    typer.echo(f"made kits for {', '.join(done.added)} in {out}; roster {version}")
    if version > 1:
        typer.echo(
            f"give the others the new roster: copy {out}/roster.json to "
            f"roster.d/{version}.json in each kit; no other byte of theirs changed"
        )


@app.command()
def aggregator(kit: KitOption) -> None:
    """Serve as an aggregator: lead, or stand by until the leader dies."""
    from fedsecure.daemons.aggregator import main as serve

    _daemon(serve, kit)


@app.command()
def node(kit: KitOption) -> None:
    """Serve as a site: keys, policy, budget and training stay here."""
    from fedsecure.daemons.node import main as serve

    _daemon(serve, kit)


@app.command()
def status(kit: KitOption) -> None:
    """Say who leads, since when, and how far the run of an aggregator's kit is."""
    from fedsecure.assembly.status import look

    table = Table(show_header=False, box=None)
    for name, value in look(kit).items():
        table.add_row(name, value)
    Console().print(table)


@app.command()
def doctor(
    kit: Annotated[
        Path | None, typer.Option("--kit", help="Kit to look at; else the machine.")
    ] = None,
) -> None:
    """Check ports, clocks, certificates, stores, disk, devices; say what to do."""
    from fedsecure.clock import SystemClock
    from fedsecure.doctor.checks import checks, worst

    found, console = checks(kit, SystemClock()), Console()
    for finding in found:
        mark = _MARKS[str(finding.level)]
        console.print(f"{mark} [bold]{finding.name}[/]: {_escaped(finding.message)}")
        if finding.advice:
            console.print(f"     → {_escaped(finding.advice)}")
    if worst(found) == "fail":
        raise typer.Exit(1)


@ledger_app.command("verify")
def ledger_verify(
    path: Annotated[Path, typer.Argument(help="ledger.jsonl")],
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


@policy_app.command("sign")
def policy_sign(
    kit: Annotated[Path, typer.Argument(help="A site's kit.")],
) -> None:
    """Sign a site's policy.yaml after the steward edited it."""
    from fedsecure.provision.steward import sign_policy

    sign_policy(kit)
    typer.echo(f"signed {kit / 'policy.yaml'}")


@data_app.command("schema")
def data_schema(
    path: Annotated[Path, typer.Argument(help="A CSV of this site.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="schema.yaml to write.")],
) -> None:
    """Draft a schema from a CSV, locally; bounds guessed from rows are marked."""
    from fedsecure.errors import ConfigurationError
    from fedsecure.learning.tables import draft_schema

    if out.exists():
        raise ConfigurationError(f"{out} exists: remove it or choose another name")
    out.write_text(draft_schema(path), encoding="utf-8")
    typer.echo(f"wrote {out}: review every bound marked 'from your data'")


def _run(overrides: list[str]) -> Path:
    from fedsecure.composition import composed
    from fedsecure.experiment import run_experiment
    from fedsecure.progress import Progress, quiet

    config = composed(overrides)
    quiet()
    return run_experiment(config, Progress(Console(stderr=True)).show).folder


def _tell(folder: Path) -> None:
    """Print what happened, as the demo promises."""
    from fedsecure.progress import closing_lines

    console = Console()
    for name, value in closing_lines(folder):
        console.print(f"[bold]{name:>22}[/]  {_escaped(value)}")


def _daemon(serve: Callable[[Path], int], kit: Path) -> None:
    from fedsecure.daemons.shutdown import log_to_stderr

    log_to_stderr()
    code: Any = serve(kit.absolute())
    raise typer.Exit(int(code))


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
