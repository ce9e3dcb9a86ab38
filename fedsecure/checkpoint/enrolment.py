"""Whether a kit's roster is new enough for what stores hold, and what does not fit."""

from collections.abc import Iterator

from fedsecure.checkpoint.inventory import Inventory, manifest_key
from fedsecure.checkpoint.probe import OWNER, require_owner
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.errors import (
    ConfigurationError,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.stores import Store


def require_newest(rosters: Rosters, found: Inventory) -> None:
    """Return only if no checkpoint was made under a newer roster than ours.

    With an older one the last releases may look like nobody's, and what a revoked
    aggregator may open would be wrapped for it again.

    Raises
    ------
    ConfigurationError
        One was, or it or a store is of another federation: names both, and what to do.
    """
    for place in sorted(found.held.get(OWNER, frozenset())):
        _require_owner(*found.stores[place], rosters.current.federation)
    for key, unread in sorted(found.unread.items()):
        rosters.require_unread(key, unread)
    for _, chain in sorted(found.chains.items()):
        for manifest in (*chain.links, *chain.orphans):
            rosters.require_known(manifest)


def _require_owner(name: str, store: Store, federation: str) -> None:
    try:
        require_owner(store, federation)
    except ConfigurationError as foreign:
        raise ConfigurationError(f"store {name}: {foreign}") from foreign
    except (NotFound, StorageError, VerificationError):
        return  # what cannot be read tells nothing; `examine` says so of each copy


def doubts(rosters: Rosters, found: Inventory) -> Iterator[tuple[str, str]]:
    """Yield the key of each release that was not made as it says, and why."""
    for _, chain in sorted(found.chains.items()):
        for manifest in chain.links:
            try:
                rosters.compare(manifest)
            except ConfigurationError as refused:
                yield manifest_key(manifest), str(refused)
