"""Commands on kits, policies and run keys."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedsecure.commands.options import OutOption, PassphraseOption, passphrase

policy_app = typer.Typer(no_args_is_help=True, help="What a site lets a run do.")
kit_app = typer.Typer(no_args_is_help=True, help="Kits that were handed out.")
keys_app = typer.Typer(no_args_is_help=True, help="The keys updates are under.")


@policy_app.command("sign")
def policy_sign(
    kit: Annotated[Path, typer.Argument(help="A site's kit.")],
) -> None:
    """Sign a site's policy.yaml after the steward edited it."""
    from fedsecure.provision.steward import sign_policy

    sign_policy(kit)
    typer.echo(f"signed {kit / 'policy.yaml'}")


@kit_app.command("revoke")
def kit_revoke(
    name: Annotated[str, typer.Argument(help="The member that leaves.")],
    out: OutOption,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Write the next roster, in which a member takes no part any more."""
    from fedsecure.provision.kits import revoke

    done = revoke(name, out, datetime.now(UTC), passphrase(passphrase_file))
    version = done.roster.version
    typer.echo(
        f"{name} is revoked in roster {version}: copy {out}/roster.json to "
        f"roster.d/{version}.json in every kit, the aggregators' first, and start "
        "the daemons again"
    )


@kit_app.command("renew")
def kit_renew(
    name: Annotated[str, typer.Argument(help="An aggregator or operator.")],
    out: OutOption,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Renew a kit's certificate for the key it has; no secret travels again."""
    from fedsecure.provision.kits import renew

    path = renew(name, out, datetime.now(UTC), passphrase(passphrase_file))
    typer.echo(f"renewed {path}: copy this one file into the kit in use")


@keys_app.command("rotate")
def keys_rotate(
    kit: Annotated[Path, typer.Argument(help="An aggregator's kit.")],
) -> None:
    """Have a custodian site make a new run key before the next round opens."""
    from fedsecure.assembly.controls import wish_for_key

    run = wish_for_key(kit)
    typer.echo(
        f"run {run} gets a new key before its next round, once this aggregator leads; "
        "`fedsecure ledger verify` and the event 'rotated' show it"
    )
