"""From one key-encryption key to another: every object's key is wrapped anew.

The data is not touched and no object changes its name. Stores never overwrite, so a
copy goes in four steps, each of which may be the last before a crash: the new bytes
under ``rewrap/``, the old copy removed, the new bytes in its place, the first removed.
A repeat finishes what was begun. Nobody else may write meanwhile: every aggregator is
stopped.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedsecure.checkpoint.copies import State
from fedsecure.checkpoint.inventory import Inventory, examiner
from fedsecure.checkpoint.judge import Family, family
from fedsecure.checkpoint.rack import Rack
from fedsecure.checkpoint.seal import from_bytes, to_bytes
from fedsecure.errors import (
    AlreadyExists,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.stores import Store

BESIDE = "rewrap/"
_SEALED = {Family.RELEASE, Family.BEGIN, Family.UPDATE}


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What became of one key.

    Attributes
    ----------
    key : str
    copies : int
        Copies that were replaced; 0: all were under the new key already.
    why : str
        Why it could not be done; "" if it was.
    """

    key: str
    copies: int
    why: str = ""


def rewrap_all(inventory: Inventory, rack: Rack) -> Iterator[Rewrapped]:
    """Bring every sealed object under the closing keys of a rack, on every store.

    Raises
    ------
    StorageError
        A store does not answer, or the token of a key: nothing is half done that a
        repeat does not finish.
    """
    if inventory.silent:
        place, why = next(iter(inventory.silent.items()))
        raise StorageError(
            f"store {inventory.stores[place][0]} does not answer: {why}. Its copies "
            "would stay under the old key: bring it back first"
        )
    for _, store in inventory.stores:
        _finish(store, inventory.judge.limit)
    contexts = {name: m.release for name, m in inventory.sealing().items()}
    for key in sorted(k for k in inventory.held if family(k) in _SEALED):
        yield _one(inventory, rack, key, contexts)


def left(inventory: Inventory, rack: Rack) -> tuple[str, ...]:
    """Return the sealed objects of which a copy is not under the closing keys alone."""
    limit, found = inventory.judge.limit, set()
    for key in (k for k in inventory.held if family(k) in _SEALED):
        for _, store in inventory.stores:
            try:
                if not rack.current(from_bytes(store.get(key, limit)).wraps):
                    found.add(key)
            except (NotFound, VerificationError):
                continue
    return tuple(sorted(found))


def _one(
    inventory: Inventory, rack: Rack, key: str, contexts: Mapping[str, str]
) -> Rewrapped:
    context = key if family(key) != Family.RELEASE else contexts.get(key)
    if context is None:
        why = "no manifest names it: `fedsecure checkpoint gc` removes it in time"
        return Rewrapped(key, 0, why)
    try:
        copies = _copies(inventory, key)
        new = _new(inventory, rack, key, context, tuple(copies.values()))
    except VerificationError as bad:
        return Rewrapped(key, 0, str(bad))
    replaced = 0
    for place, data in copies.items():
        if data != new:
            _replace(inventory.stores[place][1], key, new)
            replaced += 1
    return Rewrapped(key, replaced)


def _copies(inventory: Inventory, key: str) -> dict[int, bytes]:
    """Return the good copies by store; a bad one is for `checkpoint restore`."""
    looked = examiner(inventory)(key)
    if looked.good is None:
        raise VerificationError("; ".join(c.why for c in looked.copies if c.why))
    found, limit = {}, inventory.judge.limit
    for copy in looked.copies:
        if copy.state == State.SILENT:
            raise StorageError(f"{key}: {copy.why}")
        if copy.state == State.GOOD:
            found[copy.store] = inventory.stores[copy.store][1].get(key, limit)
    return found


def _new(
    inventory: Inventory,
    rack: Rack,
    key: str,
    context: str,
    copies: tuple[bytes, ...],
) -> bytes:
    """Return the bytes that every store gets: one of its copies, if that is current."""
    for data in copies:
        if rack.current(from_bytes(data).wraps):
            return data
    new = to_bytes(rack.rewrapped(from_bytes(copies[0]), context.encode()))
    rack.open(from_bytes(new), context.encode())  # before the old copy goes
    if family(key) == Family.RELEASE:
        inventory.judge.named(key, new)
    return new


def _replace(store: Store, key: str, new: bytes) -> None:
    beside = BESIDE + key
    try:
        store.put(beside, new)
    except AlreadyExists:  # `_finish` removed what a crash left: somebody else writes
        raise StorageError(
            f"{beside} exists: another rewrap runs; end it, then repeat"
        ) from None
    store.delete(key)
    try:
        store.put(key, new)
    except AlreadyExists:
        raise StorageError(
            f"{key} was written meanwhile: stop every aggregator, then repeat"
        ) from None
    store.delete(beside)


def _finish(store: Store, limit: int) -> None:
    """Finish what a crash left: the copy beside takes its place if that is empty."""
    for beside in store.keys(BESIDE):
        key = beside.removeprefix(BESIDE)
        # There already: before the old one was removed, or after the new one was put.
        with contextlib.suppress(AlreadyExists):
            store.put(key, store.get(beside, limit))
        store.delete(beside)
