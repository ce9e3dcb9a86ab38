"""A member's start-up kit: one folder, read once, suspicious of what it finds.

``kit.json`` says whose kit it is; ``roster.json`` beside it (or a newer one in
``roster.d/``) who else takes part. Private keys are files of mode 0600.
"""

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedsecure.access.roster import MAX_BYTES, Role, Roster, newest, read_roster
from fedsecure.disk import Disk
from fedsecure.errors import KeyExposed, KitError, NotFound, VerificationError
from fedsecure.keys import BoxKey, SigningKey

FORMAT = 1
_SITE_SECRETS = ("supernode.key", "policy.yaml", "run.key", "secret.key", "he.key")
Mode = Callable[[Path], int]


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
    """

    path: Path
    name: str
    role: Role
    roster: Roster
    signing: SigningKey
    box: BoxKey

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
                f"{self.path} is the kit of {self.role} {self.name}, not of a "
                f"{role}: pass the {role}'s kit"
            )
        return self


def read_kit(path: Path, disk: Disk, mode: Mode) -> Kit:
    """Read a kit: who, roster, keys; and that it holds nothing it should not.

    Parameters
    ----------
    mode : callable
        Path -> its permission bits; a kit whose keys others may read is refused.

    Raises
    ------
    KitError
        Not a kit, incomplete, of another federation, or readable by others.
    KeyExposed
        An aggregator's kit with a site's secret in it.
    """
    facts = _facts(path, disk)
    name, role = facts["name"], Role(facts["role"])
    if role == Role.AGGREGATOR:
        _refuse_secrets(path, disk)
    roster = _roster(path, disk, facts["federation"])
    try:
        member = roster.member(name, role)
    except VerificationError as bad:
        raise KitError(f"{path}: {bad}") from bad
    signing = SigningKey.from_bytes(_secret(path / "signing.key", disk, mode))
    box = BoxKey.from_bytes(_secret(path / "box.key", disk, mode))
    if signing.public != member.signing or box.public != member.box:
        raise KitError(f"{path}: its keys are not those the roster has for {name}")
    return Kit(path, name, role, roster, signing, box)


def _facts(path: Path, disk: Disk) -> dict[str, str]:
    try:
        data = disk.read(path / "kit.json", MAX_BYTES)
    except NotFound as missing:
        raise KitError(
            f"{path} holds no kit.json: pass a folder that `fedsecure provision` made"
        ) from missing
    try:
        facts = json.loads(data)
        found = {k: str(facts[k]) for k in ("federation", "name", "role")}
        if facts["format"] != FORMAT or found["role"] not in set(Role):
            raise KitError(f"{path}/kit.json is of format {facts['format']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise KitError(f"{path}/kit.json cannot be read") from bad
    return found


def _roster(path: Path, disk: Disk, federation: str) -> Roster:
    names = ["roster.json", *(f"roster.d/{n}" for n in disk.listdir(path / "roster.d"))]
    try:
        found = [read_roster(disk.read(path / n, MAX_BYTES), federation) for n in names]
        return newest(found)
    except (VerificationError, NotFound) as bad:
        raise KitError(f"{path}: {bad}") from bad


def _secret(path: Path, disk: Disk, mode: Mode) -> bytes:
    try:
        data = disk.read(path, 64)
    except NotFound as missing:
        raise KitError(f"{path} is missing: the kit is incomplete") from missing
    if mode(path) & (stat.S_IRWXG | stat.S_IRWXO):
        raise KitError(f"{path} can be read by others: chmod 600 {path}")
    return data


def _refuse_secrets(path: Path, disk: Disk) -> None:
    found = sorted(set(disk.listdir(path)) & set(_SITE_SECRETS))
    if found:
        raise KeyExposed(
            f"{path}: an aggregator's kit holds a site's {', '.join(found)}; remove it, "
            "and rotate what it protects"
        )
