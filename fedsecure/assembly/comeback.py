"""Whether an aggregator's kit that comes back from a backup has a roster new enough.

Its roster is as old as the backup. The stores it names know of a newer one, if a round
was released under that; an aggregator would refuse to start, and here its operator is
still at hand. No store is a condition: who has lost everything restores all the same.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from fedsecure.access.roster import Role, Roster, newest, read_roster
from fedsecure.assembly.backupfile import is_roster
from fedsecure.assembly.places import open_stores
from fedsecure.checkpoint.bounded import bounded
from fedsecure.checkpoint.enrolment import require_newest
from fedsecure.checkpoint.inventory import take
from fedsecure.checkpoint.judge import Judge
from fedsecure.checkpoint.patience import Bounds, Patience
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.clock import SystemClock
from fedsecure.config import AggregatorConfig, parse_section
from fedsecure.errors import ConfigurationError, KitError, VerificationError
from fedsecure.keys import BoxKey
from fedsecure.stores import Store

log = logging.getLogger(__name__)

CONFIG = "aggregator.json"
_BOUNDS = Bounds(linger=4.0, longest=16.0)
"""An operator waits: a folder on a mount that is gone counts as one that is silent."""


def require_roster(
    where: str, federation: str, backup: Mapping[str, bytes], there: Mapping[str, bytes]
) -> None:
    """Return only if no checkpoint in reach was made under a newer roster.

    Parameters
    ----------
    where : str
        The kit, for people.
    backup, there : mapping of str to bytes
        Rosters and `aggregator.json` that come back, and those in the folder already.

    Raises
    ------
    KitError
        One was; names the versions, and what to do. Or a roster that lies in the folder
        is not of this federation.
    """
    stores = _stores(where, backup.get(CONFIG))
    if not stores:
        return
    rosters = _rosters(where, federation, {**there, **backup})
    judge = _judge(rosters.current)
    patience = Patience(SystemClock(), _BOUNDS)
    found = take(bounded(stores, patience), judge, None)
    for place, why in found.silent.items():
        log.warning(
            "%s: store %s could not be asked for a newer roster than %d (%s): the "
            "aggregator asks again when it goes on with the run",
            where,
            stores[place][0],
            rosters.current.version,
            why,
        )
    try:
        require_newest(rosters, found)
    except ConfigurationError as older:
        raise KitError(
            f"{where}: nothing was written: {older}. A roster may lie there before the "
            "kit does: put it there, then repeat the restore"
        ) from older


def _stores(where: str, config: bytes | None) -> tuple[tuple[str, Store], ...]:
    """Return the stores of a configuration; none where this machine cannot say."""
    if config is None:
        return ()
    try:
        values = json.loads(config)
        return open_stores(parse_section(AggregatorConfig, values, Path(CONFIG)))
    except (ConfigurationError, ValueError, RecursionError) as bad:
        log.warning(
            "%s: the stores were not asked for a newer roster: %s: %s",
            where,
            CONFIG,
            bad,
        )
        return ()


def _rosters(where: str, federation: str, files: Mapping[str, bytes]) -> Rosters:
    try:
        found = [read_roster(files[n], federation) for n in files if is_roster(n)]
        current = newest(found)
    except VerificationError as bad:
        raise KitError(f"{where}: {bad}: nothing was written") from bad
    return Rosters(current, tuple(r for r in found if r.version < current.version))


def _judge(roster: Roster) -> Judge:
    """Return what reads manifests, and opens nothing."""
    members = roster.members.values()
    signers = {m.name: m.signing for m in members if m.role == Role.AGGREGATOR}
    return Judge("", BoxKey.generate(), signers, {})
