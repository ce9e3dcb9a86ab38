"""The socket for bulk bytes: write once, read with a limit."""

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from fedsecure.disk import Readable
from fedsecure.errors import ConfigurationError
from fedsecure.outgoing import Bytes

_PART = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Store(Protocol):
    """A place for objects that never change.

    Keys are ``/``-separated names of ``[A-Za-z0-9._-]``, at most 255 bytes a part; no
    part is empty, ``.`` or ``..``; any other key is a `ConfigurationError`.
    """

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return the whole object, or refuse it unread if it is larger.

        Raises
        ------
        NotFound
            No such key.
        VerificationError
            The object is larger than `max_bytes`.
        StorageError
            The store could not be asked.
        """
        ...

    def put(self, key: str, value: bytes) -> None:
        """Write a new object; durable on return, all or nothing.

        Raises
        ------
        AlreadyExists
            The key was written before; its bytes are untouched.
        StorageError
            Not written, or not durable: the caller must not go on.
        """
        ...

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return all keys that start with `prefix`, sorted.

        Up to its last ``/`` the prefix must be a key, so that nothing outside the
        store can be listed. What is there and has no key's name is left out.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; durable on return. A missing key is no error."""
        ...


@runtime_checkable
class StreamingStore(Protocol):
    """A store that also takes and gives large objects a piece at a time."""

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        """Write a new object as `put` does; each piece is done with at the next.

        Parameters
        ----------
        key : callable
            () -> its key, asked for after the last piece: it may be made of them.
        """
        ...

    def get_stream(self, key: str, max_bytes: int) -> AbstractContextManager[Readable]:
        """Return the object as a file to be read in order; see `Store.get`."""
        ...


@runtime_checkable
class RoomyStore(Protocol):
    """A store that knows how much more it can take."""

    def room(self) -> int | None:
        """Return how many bytes it has left; None: it cannot tell.

        Raises
        ------
        StorageError
            It could not be asked.
        """
        ...


@runtime_checkable
class TimedStore(Protocol):
    """A store whose every call ends by itself, however its server stands still."""

    ends_by_itself: bool


def check_key(key: str) -> str:
    """Return `key` if every part of it is a plain name.

    Raises
    ------
    ConfigurationError
        Otherwise; nothing was touched.
    """
    if not is_key(key):
        raise ConfigurationError(
            f"store key {key!r}: parts must be 1 to 255 of A-Z a-z 0-9 . _ -"
        )
    return key


def is_key(key: str) -> bool:
    """Return whether every part of `key` is a plain name."""
    return all(
        _PART.fullmatch(part) and part not in {".", ".."} and part[:5] != ".tmp-"
        for part in key.split("/")
    )


def folder_of(prefix: str) -> str:
    """Return the part of a prefix up to its last ``/``, checked; "" if there is none.

    Raises
    ------
    ConfigurationError
        It is no key.
    """
    folder, slash, _ = prefix.rpartition("/")
    return check_key(folder) if slash else ""
