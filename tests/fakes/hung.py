"""A store on a mount that is gone: no call into it returns until it comes back."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from fedsecure.disk import Readable
from fedsecure.errors import StorageError
from fedsecure.outgoing import Bytes
from fedsecure.stores.local import LocalStore

_TEST_SECONDS = 30.0  # a test that forgets to let it go must end all the same


class HungStore:
    """A local store that hangs while it is told to.

    Attributes
    ----------
    hangs : bool
    asked : int
        Calls that did not return.
    free : int
        What it says it has left.
    """

    def __init__(self, store: LocalStore) -> None:
        self._store, self._back = store, threading.Event()
        self.hangs, self.asked, self.free = True, 0, 1 << 40

    def come_back(self) -> None:
        """Let every call go on."""
        self.hangs = False
        self._back.set()

    def get(self, key: str, max_bytes: int) -> bytes:
        self._hang()
        return self._store.get(key, max_bytes)

    def put(self, key: str, value: bytes) -> None:
        self._hang()
        self._store.put(key, value)

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        def hanging() -> Iterator[Bytes]:
            for piece in pieces:
                self._hang()
                yield piece

        self._store.put_stream(hanging(), key)

    @contextmanager
    def get_stream(self, key: str, max_bytes: int) -> Iterator[Readable]:
        self._hang()
        with self._store.get_stream(key, max_bytes) as file:
            yield file

    def keys(self, prefix: str) -> tuple[str, ...]:
        self._hang()
        return self._store.keys(prefix)

    def delete(self, key: str) -> None:
        self._hang()
        self._store.delete(key)

    def room(self) -> int | None:
        self._hang()
        return self.free

    def _hang(self) -> None:
        if not self.hangs:
            return
        self.asked += 1
        if not self._back.wait(_TEST_SECONDS):
            raise StorageError("nobody let it go")
