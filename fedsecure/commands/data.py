"""Commands on a site's own data."""

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(no_args_is_help=True, help="A site's own data.")


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
