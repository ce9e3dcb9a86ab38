"""Commands on backups of a kit: create, verify, restore."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedsecure.access.kit import Kit
    from fedsecure.checkpoint.sealedfile import Lid, Passphrase

backup_app = typer.Typer(
    no_args_is_help=True, help="A kit with its state in one file, for another machine."
)

_Kit = Annotated[Path, typer.Argument(help="A kit, of an aggregator or a site.")]
_File = Annotated[Path, typer.Argument(help="The backup.")]
_Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File (0600) whose first line seals it; without: the kit's own key.",
    ),
]
_KekOf = Annotated[
    Path | None,
    typer.Option(
        "--kek",
        help="The aggregator.json that names the token it is sealed under, if the kit "
        "is lost.",
    ),
]


@backup_app.command("create")
def backup_create(kit: _Kit, out: _File, passphrase_file: _Passphrase = None) -> None:
    """Write a kit, its ledger, shelf and control files into one sealed, signed file."""
    from fedsecure.assembly.backup import create

    made = create(kit, out, _passphrase(passphrase_file), _journal)
    how = (
        "no daemon ran meanwhile"
        if made.quiet
        else "its daemon runs: the shelf was copied first and the ledger last, so that "
        "no answer is ahead of its ledger; stop it for a copy of one moment"
    )
    typer.echo(f"{out}: {len(made.files)} files of {made.role} {made.name}, verified")
    typer.echo(how)
    if passphrase_file is None:
        typer.echo(
            "only this kit's own key opens it, its box.key or its token: keep a copy "
            "of that elsewhere"
        )


@backup_app.command("verify")
def backup_verify(
    kit: _Kit, file: _File, passphrase_file: _Passphrase = None, kek: _KekOf = None
) -> None:
    """Open all of a backup and check signature, digests and ledger; writes nothing."""
    from fedsecure.assembly.backup import verify

    found = verify(file, _lid(kit, passphrase_file, kek))
    line = 0 if found.ledger is None else found.ledger.seq
    typer.echo(
        f"{file} is good: {found.role} {found.name}, {found.time}, "
        f"{len(found.files)} files, ledger up to line {line}"
    )


@backup_app.command("restore")
def backup_restore(
    kit: _Kit, file: _File, passphrase_file: _Passphrase = None, kek: _KekOf = None
) -> None:
    """Put a backup back into KIT, which may be empty; never over anything newer."""
    from fedsecure.assembly.backup import after_restore, restore, verify
    from fedsecure.assembly.filing import Act

    lid = _lid(kit, passphrase_file, kek)
    acts = restore(file, kit.absolute(), lid)
    count = {act: list(acts.values()).count(act) for act in Act}
    typer.echo(
        f"{kit}: {count[Act.WRITE]} files written, {count[Act.CONTINUE]} continued, "
        f"{count[Act.SAME]} were there, {count[Act.LONGER]} are longer there and stay"
    )
    typer.echo(after_restore(verify(file, lid)))


def _journal(kit: "Kit") -> dict[str, bytes]:
    from fedsecure.assembly.diary import export
    from fedsecure.errors import StorageError

    try:
        return export(kit)
    except StorageError as silent:
        typer.echo(f"without the journal: {silent}", err=True)
        return {}


def _passphrase(path: Path | None) -> "Passphrase | None":
    from fedsecure.checkpoint.sealedfile import Passphrase
    from fedsecure.provision.office import read_passphrase

    return None if path is None else Passphrase(read_passphrase(path))


def _lid(kit: Path, path: Path | None, kek: Path | None) -> "Lid":
    from fedsecure.assembly.backup import lid_of

    return _passphrase(path) or lid_of(kit, kek)
