"""What one store is asked: put, find the same there, open; whole or piece by piece."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from fedsecure.checkpoint.call import Moved
from fedsecure.disk import Readable
from fedsecure.errors import AlreadyExists, VerificationError
from fedsecure.outgoing import Bytes
from fedsecure.stores import Store, StreamingStore

T = TypeVar("T")
_OTHER_WRAPS = 1 << 20  # what says the same may be longer by its wrapped keys


def put_or_same(
    store: Store, key: str, value: bytes, same: Callable[[bytes], bool] | None
) -> None:
    """Put an object, or find that the store holds it.

    Parameters
    ----------
    same : callable, optional
        Whether what a store holds instead says the same.

    Raises
    ------
    AlreadyExists
        It holds other bytes, or a copy gone bad.
    """
    try:
        store.put(key, value)
    except AlreadyExists as other:
        if not _holds(store, key, value, same):
            raise AlreadyExists(f"{key} holds other bytes") from other


def stream_or_same(
    store: StreamingStore,
    pieces: Iterable[Bytes],
    key: Callable[[], str],
    max_bytes: int,
    same: Callable[[Bytes], bool],
) -> None:
    """As `put_or_same`, of pieces.

    Parameters
    ----------
    max_bytes : int
        Largest object that may be there already.
    """
    try:
        store.put_stream(pieces, key)
    except AlreadyExists as other:
        if not _same(cast("Store", store), key(), max_bytes, same):
            raise AlreadyExists(f"{key()} holds other bytes") from other


@contextmanager
def opened(store: Store, key: str, max_bytes: int, moved: Moved) -> Iterator[Readable]:
    """Open an object to be read in order; `moved` is told of each read."""
    if isinstance(store, StreamingStore):
        with store.get_stream(key, max_bytes) as file:
            yield _Moving(file, moved)
    else:
        yield io.BytesIO(store.get(key, max_bytes))


def passing(pieces: Iterable[Bytes], moved: Moved) -> Iterator[Bytes]:
    """Yield pieces; `moved` is told of each that is asked for."""
    for piece in pieces:
        moved()
        yield piece
    moved()


class MovingStore:
    """A store that says each time it did something.

    Parameters
    ----------
    store : Store
    moved : callable
    """

    def __init__(self, store: Store, moved: Moved) -> None:
        self._store, self._moved = store, moved

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return an object; see `Store`."""
        return self._noted(self._store.get(key, max_bytes))

    def put(self, key: str, value: bytes) -> None:
        """Write an object; see `Store`."""
        self._store.put(key, value)
        self._moved()

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return keys; see `Store`."""
        return self._noted(self._store.keys(prefix))

    def delete(self, key: str) -> None:
        """Remove an object; see `Store`."""
        self._store.delete(key)
        self._moved()

    def _noted(self, answer: T) -> T:
        self._moved()
        return answer


class _Moving:
    """A file that says when it was read from."""

    def __init__(self, file: Readable, moved: Moved) -> None:
        self._file, self._moved = file, moved

    def readinto(self, into: memoryview, /) -> int | None:
        count = self._file.readinto(into)
        self._moved()
        return count


def _holds(
    store: Store, key: str, value: bytes, same: Callable[[bytes], bool] | None
) -> bool:
    room = 0 if same is None else _OTHER_WRAPS
    return _same(
        store,
        key,
        len(value) + room,
        lambda stored: stored == value or (same is not None and same(stored)),
    )


def _same(
    store: Store, key: str, max_bytes: int, same: Callable[[bytes], bool]
) -> bool:
    try:
        return same(store.get(key, max_bytes))
    except VerificationError:  # larger, gone bad, or sealed for somebody else
        return False
