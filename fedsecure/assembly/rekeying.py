"""The key-encryption keys of an aggregator, for an operator: make, look, exchange."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config
from fedsecure.assembly.checkpoints import Desk
from fedsecure.assembly.places import open_kek
from fedsecure.checkpoint.inventory import take
from fedsecure.checkpoint.rebuild import LEASE_SECONDS
from fedsecure.checkpoint.rewrap import Rewrapped, left, rewrap_all
from fedsecure.config import AggregatorConfig
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.metadata import Step
from fedsecure.placement import KekConfig


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key-encryption key as `show` prints it.

    Attributes
    ----------
    id : str
        Its name in objects.
    where : str
    use : str
    """

    id: str
    where: str
    use: str


def make_key(path: Path) -> KeyRow:
    """Make the key that ``aggregator.json`` names in its token.

    Raises
    ------
    ConfigurationError
        It names no token, or a key of this label is there.
    StorageError
        The token is away, or full.
    """
    kit, config = _read(path)
    if config.kek.name != "pkcs11":
        where = kit.path / "aggregator.json"
        raise ConfigurationError(
            f"{where}: kek.name={config.kek.name!r}, and a kit's own key was made with "
            "it; name a token: kek.name=pkcs11 with module, token, label and pin_file"
        )
    return _row(kit, config.kek, "seals and opens", make=True)


def shown(path: Path, *, retry_pin: bool = False) -> Iterator[KeyRow]:
    """Yield the keys that an aggregator has; each token's is logged in to.

    Parameters
    ----------
    retry_pin : bool
        Try the PIN once although the token says that the last one was wrong.
    """
    kit, config = _read(path)
    yield _row(kit, config.kek, "seals and opens", retry_pin=retry_pin)
    for before in config.kek_before:
        yield _row(kit, before, "opens", retry_pin=retry_pin)
    if config.kek.name != "file":
        yield _row(kit, KekConfig(), "opens")


def rewrap(desk: Desk) -> Iterator[Rewrapped]:
    """Bring every object on every store under the present key, and yield what was done.

    Raises
    ------
    ConfigurationError
        Somebody leads.
    StorageError
        A store or token does not answer, or a copy under an old key is left: repeat.
    """
    leases, kit = desk.engine.leases, desk.kit
    lease = leases.acquire(kit.name, "rewrap", LEASE_SECONDS)
    if lease is None:
        raise ConfigurationError(
            "somebody leads, or led until now: stop every aggregator of the run, then "
            "try again"
        )
    stores, judge = desk.inventory.stores, desk.inventory.judge
    try:
        unfit = set()
        for one in rewrap_all(desk.inventory, judge.rack):
            if leases.renew(lease) is None:
                raise StorageError("the lease was lost meanwhile: repeat it")
            if one.why:
                unfit.add(one.key)
            yield one
        still = set(left(take(stores, judge, None), judge.rack)) - unfit
    finally:
        leases.release(lease)
    if still:
        raise StorageError(
            f"{len(still)} objects have a copy under an old key, {min(still)} is one: "
            "was an aggregator started meanwhile? Stop it and repeat"
        )


def rounds_before(desk: Desk) -> tuple[int, ...]:
    """Return the open rounds whose own key lies in the journal under an earlier key.

    A row of the journal never changes; it goes with its round.
    """
    rack = desk.inventory.judge.rack
    found = []
    for entry in desk.engine.journal.entries(desk.run, 0):
        if entry.step == Step.KEY:
            wraps = json.loads(entry.detail).get("wraps", {})
            if set(wraps) != set(rack.closing):
                found.append(entry.round)
    return tuple(found)


def _read(path: Path) -> tuple[Kit, AggregatorConfig]:
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    return kit, read_config(kit.require(Role.AGGREGATOR))


def _row(
    kit: Kit,
    config: KekConfig,
    use: str,
    *,
    retry_pin: bool = False,
    make: bool = False,
) -> KeyRow:
    kek = open_kek(kit, config, retry_pin=retry_pin, make=make)
    where = f"token {config.token}, key {config.label}"
    if config.name == "file":
        where = f"{kit.path / 'box.key'}, and every other aggregator's"
    return KeyRow(kek.id, where, use)
