"""A member's start-up kit: one folder, read once, suspicious of what it finds.

``kit.json`` says whose kit it is; ``roster.json`` beside it (or a newer one in
``roster.d/``) who else takes part. Private keys are files of mode 0600. Adding a member
to the federation changes no byte of an existing kit: the newer roster, one signed file
without a secret, is copied into ``roster.d/`` under any name, or by `install_roster`.
"""

import contextlib
import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedsecure.access.roster import MAX_BYTES, Role, Roster, newest, read_roster
from fedsecure.disk import Disk
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    KeyExposed,
    KitError,
    NotFound,
    VerificationError,
)
from fedsecure.keys import KEY_BYTES, BoxKey, SigningKey

FORMAT = 1
_AUTHORITY = {"root.key", "issuing.key", "roster.key", "ca.key"}
_SITE_ONLY = {
    "supernode.key",
    "steward.key",
    "policy.yaml",
    "run.key",
    "secret.key",
    "he.key",
}
_AGGREGATOR_KEYS = {"signing.key", "box.key", "tls.key"}
_NEEDED = {
    Role.SITE: ("ca.crt", "supernode.key", "supernode.pub"),
    Role.AGGREGATOR: ("ca.crt", "tls.crt", "tls.key"),
    Role.OPERATOR: ("ca.crt", "tls.crt", "tls.key"),
}
_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
Mode = Callable[[Path], int]
"""Path -> its permission bits (``st_mode``)."""


@dataclass(frozen=True, slots=True)
class Kit:
    """A verified kit.

    Attributes
    ----------
    path : Path
    name : str
    role : Role
    roster : Roster
        The newest one found.
    signing, box : SigningKey, BoxKey
    earlier : tuple of Roster
        The others found, oldest first: who took part then.
    """

    path: Path
    name: str
    role: Role
    roster: Roster
    signing: SigningKey
    box: BoxKey
    earlier: tuple[Roster, ...] = ()

    @property
    def state(self) -> Path:
        """Where the member's daemon keeps what it must not lose."""
        return self.path / "state"

    def require(self, role: Role) -> "Kit":
        """Return this kit if it is for `role`.

        Raises
        ------
        KitError
            It is for another role.
        """
        if self.role != role:
            raise KitError(
                f"{self.path} is the kit of {self.role} {self.name}, needed is one of "
                f"role {role}: pass that member's kit"
            )
        return self


def read_kit(path: Path, disk: Disk, mode: Mode) -> Kit:
    """Read a kit: who, roster, keys; and that it holds nothing it should not.

    Expiry is not looked at here, because nothing here knows the time: daemons call
    `Roster.require_current`, `doctor` looks at the certificates.

    Parameters
    ----------
    mode : callable
        Path -> its permission bits; a kit whose keys others may read is refused.

    Raises
    ------
    KitError
        Not a kit, incomplete, of another federation, revoked, or readable by others.
    KeyExposed
        A site's secret in an aggregator's kit, or the authority's in any.
    """
    facts = _facts(path, disk)
    name, role = facts["name"], Role(facts["role"])
    files = disk.listdir(path)
    _refuse_secrets(path, role, files)
    _refuse_open_doors(path, files, mode)
    missing = [n for n in _NEEDED[role] if n not in files]
    if missing:
        raise KitError(
            f"{path}: {', '.join(missing)} is missing: the kit of {role} {name} is "
            "incomplete; copy the whole folder again"
        )
    rosters = _rosters(path, disk, facts["federation"])
    roster = rosters[-1]
    try:
        member = roster.member(name, role)
    except VerificationError as bad:
        raise KitError(f"{path}: {bad}") from bad
    signing, box = _keys(path, disk)
    if signing.public != member.signing or box.public != member.box:
        raise KitError(f"{path}: its keys are not those the roster has for {name}")
    return Kit(path, name, role, roster, signing, box, rosters[:-1])


def install_roster(kit: Kit, data: bytes, disk: Disk) -> Kit:
    """Put a newer roster beside the one a kit has; return the kit with it.

    Durable on return. The roster the kit already has is no error and changes nothing.

    Raises
    ------
    KitError
        Not signed by this federation's root, not newer, or without this member.
    """
    try:
        roster = read_roster(data, kit.roster.federation)
        if roster == kit.roster:
            return kit
        roster.require_newer(kit.roster)
        member = roster.member(kit.name, kit.role)
    except VerificationError as bad:
        raise KitError(f"{kit.path}: the new roster is refused: {bad}") from bad
    if member.signing != kit.signing.public or member.box != kit.box.public:
        raise KitError(
            f"{kit.path}: roster {roster.version} has other keys for {kit.name}: it "
            "belongs to another kit of that name"
        )
    target = kit.path / "roster.d" / f"{roster.version:08d}.json"
    with contextlib.suppress(AlreadyExists):  # read_kit compares what is there
        disk.write_once(target, data)
    rosters = _rosters(kit.path, disk, kit.roster.federation)
    return replace(kit, roster=rosters[-1], earlier=rosters[:-1])


def _facts(path: Path, disk: Disk) -> dict[str, str]:
    try:
        data = disk.read(path / "kit.json", MAX_BYTES)
    except NotFound as missing:
        raise KitError(
            f"{path} holds no kit.json: pass a folder that `fedsecure provision` made"
        ) from missing
    except VerificationError as bad:
        raise KitError(f"{path}/kit.json: {bad}") from bad
    try:
        facts = json.loads(data)
        version = facts["format"]
        found = {k: str(facts[k]) for k in ("federation", "name", "role")}
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise KitError(f"{path}/kit.json cannot be read: {bad!r}") from bad
    if version != FORMAT:
        raise KitError(f"{path}/kit.json is of format {version!r}, not {FORMAT}")
    if found["role"] not in set(Role):
        raise KitError(f"{path}/kit.json: role={found['role']!r}, must be {[*Role]}")
    return found


def _rosters(path: Path, disk: Disk, federation: str) -> tuple[Roster, ...]:
    """Return each roster of a kit once, the newest last."""
    names = ["roster.json", *(f"roster.d/{n}" for n in disk.listdir(path / "roster.d"))]
    try:
        found = [read_roster(disk.read(path / n, MAX_BYTES), federation) for n in names]
        best = newest(found)
    except (VerificationError, NotFound) as bad:
        raise KitError(f"{path}: {bad}") from bad
    versions = {roster.version: roster for roster in found} | {best.version: best}
    return tuple(versions[number] for number in sorted(versions))


def _keys(path: Path, disk: Disk) -> tuple[SigningKey, BoxKey]:
    try:
        signing = SigningKey.from_bytes(disk.read(path / "signing.key", KEY_BYTES))
        return signing, BoxKey.from_bytes(disk.read(path / "box.key", KEY_BYTES))
    except (NotFound, VerificationError, ConfigurationError) as bad:
        raise KitError(f"{path}: {bad}: copy the whole kit again") from bad


def _refuse_secrets(path: Path, role: Role, files: Sequence[str]) -> None:
    """Stop on a key that must not be here, at any depth; unknown keys included.

    The state folder of a daemon may hold keys of its own, never one of these names.
    """
    refused = _AUTHORITY | (_SITE_ONLY if role == Role.AGGREGATOR else set())
    found = [f for f in files if f.rsplit("/", 1)[-1] in refused]
    if role == Role.AGGREGATOR:
        top = (f for f in files if not f.startswith("state/") and f.endswith(".key"))
        found += [f for f in top if f not in _AGGREGATOR_KEYS and f not in found]
    if found:
        raise KeyExposed(
            f"{path}: the kit of this {role} holds {', '.join(sorted(found))}, which "
            f"no {role} may have: remove it, and replace what it protects"
        )


def _refuse_open_doors(path: Path, files: Sequence[str], mode: Mode) -> None:
    if mode(path) & _OTHERS_WRITE:
        raise KitError(f"{path} can be written by others: chmod go-w {path}")
    for name in files:
        if name.endswith(".key") and mode(path / name) & _OTHERS_MAY:
            raise KitError(
                f"{path / name} can be read by others: chmod 600 {path / name}"
            )
