"""Everything the stores hold, by key and by run: what `checkpoint list` reads first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fedsecure.checkpoint.book import key_of
from fedsecure.checkpoint.chain import Chain, follow, longest
from fedsecure.checkpoint.copies import Foreign, Looked, look
from fedsecure.checkpoint.judge import Family, Judge, family
from fedsecure.checkpoint.manifest import MAX_BYTES, Manifest, Unread
from fedsecure.envelope import Kind
from fedsecure.errors import NotFound, StorageError, VerificationError
from fedsecure.metadata import Head
from fedsecure.stores import Store

Heads = Callable[[str], Head | None]
"""Run -> the head its engine has."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One look at all stores.

    Attributes
    ----------
    stores : tuple of (str, Store)
    judge : Judge
    held : mapping of str to frozenset of int
        Key -> the stores that list it.
    silent : mapping of int to str
        Stores that could not be listed, and why.
    chains : mapping of str to Chain
        Run -> its releases.
    broken : mapping of str to str
        Runs whose chain could not be told, and why.
    unread : mapping of str to Unread
        Keys under which no manifest is signed by an aggregator we know.
    """

    stores: tuple[tuple[str, Store], ...]
    judge: Judge
    held: Mapping[str, frozenset[int]]
    silent: Mapping[int, str]
    chains: Mapping[str, Chain]
    broken: Mapping[str, str]
    unread: Mapping[str, Unread] = field(default_factory=dict)

    @property
    def links(self) -> dict[str, Manifest]:
        """The committed manifests, by the name of the object each one seals."""
        return {m.object: m for c in self.chains.values() for m in c.links}

    @property
    def committed(self) -> dict[str, str]:
        """The digests of committed manifests, by key."""
        return {
            manifest_key(m): m.digest().hex()
            for chain in self.chains.values()
            for m in chain.links
        }

    def sealing(self) -> dict[str, Manifest]:
        """Return every readable manifest by the object it seals, orphans too."""
        orphans = (m for c in self.chains.values() for m in c.orphans)
        return {m.object: m for m in orphans} | self.links

    def names(self) -> tuple[str, ...]:
        """Return what is there and what should be, manifests first, sorted."""
        wanted = {*self.held, *self.committed, *self.links}
        return tuple(sorted(wanted, key=lambda key: (_turn(key), key)))

    def examine(self) -> Iterator[Looked]:
        """Yield every key with a verdict on each of its copies."""
        look_at = examiner(self)
        for key in self.names():
            yield look_at(key)


def take(
    stores: Sequence[tuple[str, Store]], judge: Judge, heads: Heads | None
) -> Inventory:
    """Return what the stores hold; every manifest is read, no object.

    Parameters
    ----------
    heads : callable, optional
        None: there is no engine; each run's longest chain is taken.
    """
    held: dict[str, set[int]] = {}
    silent: dict[int, str] = {}
    for place, (_, store) in enumerate(stores):
        try:
            for key in store.keys(""):
                held.setdefault(key, set()).add(place)
        except StorageError as failed:
            silent[place] = str(failed)
    found, unread = _manifests(stores, judge, held)
    chains, broken = _chains(found, heads)
    frozen = {key: frozenset(places) for key, places in held.items()}
    return Inventory(tuple(stores), judge, frozen, silent, chains, broken, unread)


def manifest_key(manifest: Manifest) -> str:
    """Return where a manifest lies."""
    return key_of(manifest.run, manifest.sequence)


def examiner(inventory: Inventory) -> Callable[[str], Looked]:
    """Return what looks at one key of an inventory on every store."""
    judge, committed = inventory.judge, inventory.committed
    sealing = inventory.sealing()
    judges: dict[Family, Callable[[str, bytes], object]] = {
        Family.MANIFEST: lambda k, data: judge.manifest(k, data, committed.get(k, "")),
        Family.RELEASE: lambda k, data: (
            judge.release(data, sealing[k]) if k in sealing else judge.named(k, data)
        ),
        Family.BEGIN: lambda k, data: judge.message(k, data, Kind.BEGIN),
        Family.UPDATE: judge.update,
        Family.FOREIGN: _foreign,
        Family.OWN: _anything,
        Family.MARK: _anything,
    }

    def examine(key: str) -> Looked:
        of, limit = judges[family(key)], judge.limit
        if family(key) == Family.MANIFEST:
            limit = MAX_BYTES
        return look(inventory.stores, key, limit, lambda data: of(key, data))

    return examine


def _anything(_: str, data: bytes) -> object:
    return data


def _foreign(_: str, _data: bytes) -> object:
    raise Foreign("nothing of fedsecure has such a name: move it out of the store")


def _turn(key: str) -> int:
    return 0 if family(key) == Family.MANIFEST else 1


def _manifests(
    stores: Sequence[tuple[str, Store]], judge: Judge, held: Mapping[str, set[int]]
) -> tuple[dict[str, set[Manifest]], dict[str, Unread]]:
    """Return every manifest that verifies on any store by run, and what is unread."""
    found: dict[str, set[Manifest]] = {}
    unread: dict[str, Unread] = {}
    read: set[str] = set()
    for key, places in held.items():
        if family(key) != Family.MANIFEST:
            continue
        for place in places:
            try:
                data = stores[place][1].get(key, MAX_BYTES)
                manifest = judge.manifest(key, data)
            except Unread as unknown:
                unread[key] = unknown
                continue
            except (StorageError, VerificationError, NotFound):
                continue  # `examine` says so
            found.setdefault(manifest.run, set()).add(manifest)
            read.add(key)
    return found, {key: unread[key] for key in unread if key not in read}


def _chains(
    found: Mapping[str, set[Manifest]], heads: Heads | None
) -> tuple[dict[str, Chain], dict[str, str]]:
    chains, broken = {}, {}
    for run, manifests in found.items():
        try:
            head = None if heads is None else heads(run)
            chains[run] = (
                longest(run, manifests)
                if head is None
                else follow(run, manifests, head)
            )
        except (VerificationError, StorageError) as bad:
            broken[run] = str(bad)
    return chains, broken
