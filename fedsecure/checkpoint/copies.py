"""What one key is worth on each store, and what has to be done about it.

`look` asks, `plan` decides and touches nothing, `mend` does it: a bad copy is removed
only after a good one was read, and the good bytes take its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedsecure.errors import (
    AlreadyExists,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.stores import Store


class Foreign(VerificationError):
    """It is no copy gone bad: somebody else wrote it."""


class State(StrEnum):
    """What a copy is."""

    GOOD = "good"
    MISSING = "missing"
    CHANGED = "changed"
    FOREIGN = "foreign"
    SILENT = "silent"


BAD = (State.MISSING, State.CHANGED, State.FOREIGN)


@dataclass(frozen=True, slots=True)
class Copy:
    """One key on one store.

    Attributes
    ----------
    store : int
        Its place in the list of stores.
    state : State
    why : str
        What is wrong with it; "" if nothing is.
    """

    store: int
    state: State
    why: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """One key on all stores.

    Attributes
    ----------
    key : str
    copies : tuple of Copy
        In the order of the stores.
    good : bytes
        A copy that verified; None: no store has one.
    read : int
        Bytes read to find out.
    """

    key: str
    copies: tuple[Copy, ...]
    good: bytes | None
    read: int


@dataclass(frozen=True, slots=True)
class Mend:
    """One step: good bytes to one store, after the bad ones there were removed."""

    store: int
    replace: bool


def look(
    stores: Sequence[tuple[str, Store]],
    key: str,
    max_bytes: int,
    judge: Callable[[bytes], object],
) -> Looked:
    """Read every copy of a key and judge it.

    Parameters
    ----------
    judge : callable
        Stored bytes -> anything; `VerificationError` says what is wrong with them.
    """
    copies, good, read = [], None, 0
    for place, (_, store) in enumerate(stores):
        try:
            data = store.get(key, max_bytes)
            read += len(data)
            if data != good:  # the same bytes need no second opinion
                judge(data)
                good = data if good is None else good
            copies.append(Copy(place, State.GOOD))
        except NotFound:
            copies.append(Copy(place, State.MISSING, "no such object"))
        except Foreign as strange:
            copies.append(Copy(place, State.FOREIGN, str(strange)))
        except VerificationError as bad:
            copies.append(Copy(place, State.CHANGED, str(bad)))
        except StorageError as silent:
            copies.append(Copy(place, State.SILENT, str(silent)))
    return Looked(key, tuple(copies), good, read)


def plan(looked: Looked) -> tuple[Mend, ...]:
    """Return what brings every store that answers to a good copy; pure.

    Nothing, where no good copy was found: the only evidence stays where it is. What
    somebody else wrote is replaced too: the name is taken by ours, which verified.
    """
    if looked.good is None:
        return ()
    return tuple(
        Mend(copy.store, replace=copy.state != State.MISSING)
        for copy in looked.copies
        if copy.state in BAD
    )


def mend(
    stores: Sequence[tuple[str, Store]], looked: Looked, steps: Sequence[Mend]
) -> int:
    """Carry a plan out and return how many copies were made good; idempotent.

    A crash after any step leaves a bad copy or none there, which the next look finds.

    Raises
    ------
    StorageError
        A store could not be written.
    """
    if looked.good is None:
        return 0
    for step in steps:
        store = stores[step.store][1]
        if step.replace:
            store.delete(looked.key)
        try:
            store.put(looked.key, looked.good)
        except AlreadyExists:  # its writer came back meanwhile: the next look judges
            continue
    return len(steps)
