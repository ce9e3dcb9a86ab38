"""The commands. Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused.

Here and in `commands`, imports are inside functions: `--help` must not import torch.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedsecure import __version__
from fedsecure.commands.backup import backup_app
from fedsecure.commands.checkpoint import checkpoint_app
from fedsecure.commands.data import data_app
from fedsecure.commands.drill import drill_app
from fedsecure.commands.evidence import ledger_app, privacy_app
from fedsecure.commands.kek import kek_app
from fedsecure.commands.kits import keys_app, kit_app, policy_app
from fedsecure.commands.leader import leader_app
from fedsecure.commands.options import (
    KitOption,
    OutOption,
    PassphraseOption,
    passphrase,
)
from fedsecure.errors import FedsecureError

if TYPE_CHECKING:
    from fedsecure.config import RunConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Private, encrypted, survivable federated learning on Flower.",
)
app.add_typer(ledger_app, name="ledger")
app.add_typer(privacy_app, name="privacy")
app.add_typer(policy_app, name="policy")
app.add_typer(data_app, name="data")
app.add_typer(kit_app, name="kit")
app.add_typer(keys_app, name="keys")
app.add_typer(kek_app, name="kek")
app.add_typer(leader_app, name="leader")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(backup_app, name="backup")
app.add_typer(drill_app, name="drill")

_MARKS = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}


def main() -> None:
    """Run the command line; every error of ours is one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except FedsecureError as bad:
        text = f"[bold red]fedsecure:[/] {_escaped(str(bad))}"
        Console(stderr=True).print(text, soft_wrap=True)
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
    # All of a sweep is checked before the first of it runs.
    sweep = [composed(one) for one in (swept(chosen) if multirun else [chosen])]
    for config in sweep:
        typer.echo(str(_run(config)))


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides on top of the demo.")
    ] = None,
) -> None:
    """Run real processes that lose their leader in mid-round, and finish.

    Three sites, two aggregators, TLS and node keys on every connection, differential
    privacy and encrypted aggregation on. Under five minutes on two cores.
    """
    from fedsecure.composition import composed

    folder = _run(composed(["experiment=demo", *(overrides or [])]))
    _tell(folder)
    typer.echo(str(folder))


@app.command()
def provision(
    description: Annotated[Path, typer.Argument(help="federation.yaml")],
    out: OutOption,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Make an offline authority and one start-up kit a member; again adds new ones."""
    from fedsecure.provision.kits import provision as make

    done = make(description, out, datetime.now(UTC), passphrase(passphrase_file))
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
def plan(
    out: Annotated[Path, typer.Option("-o", "--out", help="aggregator.json to write.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides; federation.kits=DIR is one of them."),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where lease and stores lie at the aggregators.")
    ] = Path("/var/lib/fedsecure"),
) -> None:
    """Write the run that aggregators are to serve, for daemons started by hand.

    Reads no data: sites weigh by rows only if federation.max_rows is set.
    """
    from fedsecure.assembly.aggregator import aggregator_config
    from fedsecure.composition import composed
    from fedsecure.experiment import make_plan

    if out.exists():
        raise typer.BadParameter(f"{out} exists: a run's plan never changes")
    config = composed(["federation.max_rows=0", *(overrides or [])])
    kits = config.federation.kits
    if kits is None:
        raise typer.BadParameter("name the kits: federation.kits=DIR")
    made = make_plan(config, Path(kits), [])
    values = aggregator_config(config, made, folder.absolute())
    text = json.dumps(values.model_dump(mode="json"), indent=1)
    out.write_text(f"{text}\n", encoding="utf-8")
    typer.echo(f"wrote {made['run']} to {out}: copy it into each aggregator's kit")


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
def health(kit: KitOption) -> None:
    """Say whether this kit's daemon serves now; ends with 1 if not. For probes."""
    from fedsecure.doctor.health import require_serving

    typer.echo(require_serving(kit))


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
        text = f"{mark} [bold]{finding.name}[/]: {_escaped(finding.message)}"
        console.print(text, soft_wrap=True)
        if finding.advice:
            console.print(f"     → {_escaped(finding.advice)}", soft_wrap=True)
    if worst(found) == "fail":
        raise typer.Exit(1)


def _run(config: "RunConfig") -> Path:
    from fedsecure.experiment import run_experiment
    from fedsecure.progress import Progress, quiet

    with quiet():
        return run_experiment(config, Progress(Console(stderr=True)).show).folder


def _tell(folder: Path) -> None:
    """Print what happened, as the demo promises."""
    from fedsecure.progress import closing_lines

    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in closing_lines(folder):
        grid.add_row(name, _escaped(value))
    Console().print(grid)


def _daemon(serve: Callable[[Path], int], kit: Path) -> None:
    from fedsecure.daemons.shutdown import log_to_stderr

    log_to_stderr()
    code: Any = serve(kit.absolute())
    raise typer.Exit(int(code))


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
