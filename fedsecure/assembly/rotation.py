"""An operator's command for a new run key, given beside a running aggregator."""

from pathlib import Path

from fedsecure.access.kit import read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config, read_terms
from fedsecure.assembly.wish import WishFile
from fedsecure.disk import SystemDisk


def wish_for_key(path: Path) -> str:
    """Ask for a new key before the next round, and return the run's name; idempotent.

    The aggregator whose kit it is sees to it once it leads.

    Raises
    ------
    KitError, ConfigurationError
        Not an aggregator's kit, or no run was given to it.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    config = read_config(kit.require(Role.AGGREGATOR))
    run = read_terms(config, kit.roster).run
    WishFile(kit.state, run, SystemDisk()).make()
    return run
