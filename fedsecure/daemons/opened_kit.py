"""A kit as a daemon opens it: whole, for its role, its roster not expired."""

from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.clock import Clock
from fedsecure.disk import Disk
from fedsecure.errors import KitError, VerificationError


def open_kit(path: Path, role: Role, disk: Disk, clock: Clock) -> Kit:
    """Return the kit at `path` if a daemon of `role` may start with it now.

    Raises
    ------
    KitError
        Not a whole kit, for another role, or its roster has expired.
    KeyExposed
        It holds a secret it must not hold.
    """
    kit = read_kit(path, disk, lambda p: p.stat().st_mode).require(role)
    try:
        kit.roster.require_current(clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ"))
    except VerificationError as expired:
        raise KitError(f"{path}: {expired}") from expired
    return kit
