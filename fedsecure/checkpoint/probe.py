"""Trying a store out before it is trusted: races, reading back, and whose it is.

Stores differ by brand in what they make of a conditional write: some let two writers
win (RESILIENCE section 8), so each is raced at every start.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fedsecure.errors import AlreadyExists, ConfigurationError, NotFound, StorageError
from fedsecure.stores import Store

RACERS, ROUNDS = 16, 8
_BYTES = 64
_START = 30.0  # seconds for a machine to start the racers
OWNER = "federation"
"""The key under which a store says whose it is."""
_MAX_OWNER = 4096


def try_out(store: Store, racers: int = RACERS, rounds: int = ROUNDS) -> None:
    """Race creates, read, list and delete; leave nothing behind.

    Parameters
    ----------
    racers : int
        Writers that create one key at the same moment.
    rounds : int
        How many keys are raced for.

    Raises
    ------
    StorageError
        The store breaks a promise of `Store`, or could not be asked.
    VerificationError
        It gave back more bytes than were written.
    """
    prefix = f"probe/{uuid.uuid4().hex}-"
    keys = tuple(f"{prefix}{n}" for n in range(rounds))
    try:
        for key in keys:
            _race(store, key, racers)
        if store.keys(prefix) != tuple(sorted(keys)):
            raise StorageError("an object just written is not listed; it must be")
    finally:
        for key in keys:
            with contextlib.suppress(StorageError):
                store.delete(key)
    _check_gone(store, prefix, keys)


def claim(store: Store, federation: str) -> None:
    """Write down whose the store is, or find that it is ours.

    Raises
    ------
    ConfigurationError
        It holds another federation's data.
    StorageError
        It could not be asked.
    """
    with contextlib.suppress(AlreadyExists):
        store.put(OWNER, _mark(federation))
        return
    require_owner(store, federation)


def require_owner(store: Store, federation: str) -> None:
    """Return only if a store that says whose it is says that it is ours.

    Raises
    ------
    ConfigurationError
        It holds another federation's data.
    NotFound, StorageError
        It does not say; it could not be asked.
    """
    theirs = store.get(OWNER, _MAX_OWNER)
    if theirs != _mark(federation):
        raise ConfigurationError(
            f"it holds the data of federation {_shown(theirs)}, ours is "
            f"{federation[:16]}: give each federation a folder or prefix of its own"
        )


def _race(store: Store, key: str, racers: int) -> None:
    """Let `racers` create `key` at once; exactly one may, and its bytes are read."""
    values = [os.urandom(_BYTES) for _ in range(racers)]
    ready = threading.Barrier(racers, timeout=_START)

    def create(value: bytes) -> bool:
        ready.wait()
        try:
            store.put(key, value)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(racers) as pool:
        won = list(pool.map(create, values))
    if not any(won):
        raise StorageError(f"{key}: a new key was refused as if it had been written")
    if sum(won) != 1:
        raise StorageError(
            f"{sum(won)} of {racers} creates of one key at the same moment succeeded, "
            "exactly one must: its conditional writes cannot be relied on; update the "
            "server or take another"
        )
    if store.get(key, _BYTES) != values[won.index(True)]:
        raise StorageError("gave back other bytes than the winner of a race wrote")


def _check_gone(store: Store, prefix: str, keys: Sequence[str]) -> None:
    if store.keys(prefix):
        raise StorageError("a deleted object is still listed; it must be gone")
    try:
        store.get(keys[0], _BYTES)
    except NotFound:
        return
    raise StorageError("a deleted object can still be read; it must be gone")


def _mark(federation: str) -> bytes:
    return f"fedsecure federation 1 {federation}\n".encode()


def _shown(owner: bytes) -> str:
    name = owner.decode("ascii", "replace").rpartition(" ")[2].strip()[:16]
    return name if name.isalnum() else "unknown"
