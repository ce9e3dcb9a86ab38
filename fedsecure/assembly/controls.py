"""What an operator asks of a running aggregator, beside it: key, pause, hand-over."""

from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config, read_terms
from fedsecure.assembly.places import open_engine
from fedsecure.assembly.wish import HANDOVER, PAUSED, WishFile
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError


def wish_for_key(path: Path) -> str:
    """Ask for a new key before the next round, and return the run's name; idempotent.

    The aggregator whose kit it is sees to it once it leads.

    Raises
    ------
    KitError, ConfigurationError
        Not an aggregator's kit, or no run was given to it.
    """
    kit = _kit(path)
    run = read_terms(read_config(kit), kit.roster).run
    WishFile.rotate(kit.state, run, SystemDisk()).make()
    return run


def pause(path: Path) -> str:
    """Have an aggregator neither lead nor campaign, and return its name; idempotent.

    What is journalled stays: whoever leads next goes on there.
    """
    kit = _kit(path)
    WishFile(kit.state, PAUSED, SystemDisk()).make()
    return kit.name


def resume(path: Path) -> str:
    """End an aggregator's pause, and return its name; idempotent."""
    kit = _kit(path)
    WishFile(kit.state, PAUSED, SystemDisk()).granted()
    return kit.name


def hand_over(path: Path) -> str:
    """Have the leader whose kit it is let another one lead, and return its name.

    Raises
    ------
    ConfigurationError
        It does not lead now.
    """
    kit = _kit(path)
    lease = open_engine(read_config(kit), look=True).leases.read()
    if lease is None or lease.holder != kit.name:
        leader = "nobody" if lease is None else lease.holder
        raise ConfigurationError(
            f"{kit.name} does not lead now, {leader} does: name the leader's kit"
        )
    WishFile(kit.state, HANDOVER, SystemDisk()).make()
    return kit.name


def is_paused(path: Path) -> bool:
    """Return whether an operator paused an aggregator."""
    return WishFile(_kit(path).state, PAUSED, SystemDisk()).wanted()


def _kit(path: Path) -> Kit:
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    return kit.require(Role.AGGREGATOR)
