"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

KitOption = Annotated[
    Path, typer.Option("--kit", help="Start-up kit: a folder that provision made.")
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File (0600) whose first line encrypts the authority's keys.",
    ),
]
OutOption = Annotated[Path, typer.Option("-o", "--out", help="Folder of all kits.")]


def passphrase(path: Path | None) -> bytes | None:
    """Return the first line of a passphrase file, or None if none was named."""
    from fedsecure.provision.office import read_passphrase

    return None if path is None else read_passphrase(path)
