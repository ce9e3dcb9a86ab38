"""Who issues a certificate: a member, its signing key, and the roster that names it.

A simulated run's kits end with it. The signing key of its first site is kept in the
run's folder, with the roster, so that the run can still be certified: a member that was
made for one run, whose word is worth as much as the folder's.
"""

from dataclasses import dataclass
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import MAX_BYTES, Role, Roster, federation_id, read_roster
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, KitError, NotFound, VerificationError
from fedsecure.keys import KEY_BYTES, SigningKey, VerifyKey

FOLDER = "issuer"


@dataclass(frozen=True, slots=True)
class Issuer:
    """A member that can sign.

    Attributes
    ----------
    name : str
    role : Role
    roster : Roster
    signed_roster : bytes
        As the federation's root signed it, so that a reader needs nothing else.
    key : SigningKey
    """

    name: str
    role: Role
    roster: Roster
    signed_roster: bytes
    key: SigningKey


def issuer_of_kit(path: Path) -> Issuer:
    """Return the member whose kit this is.

    Raises
    ------
    KitError
        It is no kit, or an operator's, who saw nothing of a run.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    if kit.role == Role.OPERATOR:
        raise KitError(
            f"{path} is the kit of operator {kit.name}, who saw nothing of the run: "
            "pass a site's or an aggregator's"
        )
    return Issuer(kit.name, kit.role, kit.roster, _signed_roster(kit), kit.signing)


def keep_issuer(issuer: Issuer, folder: Path) -> None:
    """Keep a simulated member in its run's folder; the key's file has mode 0600."""
    disk, kept = SystemDisk(), folder / FOLDER
    disk.write_once(kept / "name", issuer.name.encode())
    disk.write_once(kept / "roster.json", issuer.signed_roster)
    disk.write_once(kept / "signing.key", issuer.key.to_bytes())


def kept_issuer(folder: Path) -> Issuer:
    """Return the member that a simulated run left to certify it.

    Raises
    ------
    ConfigurationError
        The folder holds none: the run had kits of its own.
    """
    disk, kept = SystemDisk(), folder / FOLDER
    try:
        name = disk.read(kept / "name", 255).decode()
        data = disk.read(kept / "roster.json", MAX_BYTES)
        key = SigningKey.from_bytes(disk.read(kept / "signing.key", KEY_BYTES))
        roster = read_roster(data, federation_id(VerifyKey(data[:KEY_BYTES])))
    except NotFound as missing:
        raise ConfigurationError(
            f"{folder} holds no member to sign with ({missing}): the run had kits of "
            "its own; name a site's or an aggregator's with --kit"
        ) from missing
    except (VerificationError, UnicodeDecodeError) as bad:
        raise ConfigurationError(f"{kept}: {bad}; name a kit with --kit") from bad
    member = roster.members.get(name)
    if member is None or member.signing != key.public:
        raise ConfigurationError(f"{kept}: its key is not {name!r}'s in its roster")
    return Issuer(name, member.role, roster, data, key)


def _signed_roster(kit: Kit) -> bytes:
    """Return the file that the kit's newest roster was read from."""
    disk = SystemDisk()
    for path in (kit.path / "roster.json", *sorted((kit.path / "roster.d").glob("*"))):
        data = disk.read(path, MAX_BYTES)
        if read_roster(data, kit.roster.federation) == kit.roster:
            return data
    raise KitError(f"{kit.path}: its roster changed while it was read; try again")
