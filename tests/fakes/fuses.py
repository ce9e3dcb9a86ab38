"""Deaths from outside: disk, store and journal of a process that may die any time.

A `Fuse` counts its owner's durable steps and raises `Died` after the one it was set to.
A dead process does nothing more; what was durable is all that its successor finds.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedsecure.disk import Lock, Readable
from fedsecure.errors import StorageError
from fedsecure.metadata import Head, Journal, JournalEntry
from fedsecure.outgoing import Bytes
from tests.fakes.disk import FakeDisk
from tests.fakes.store import FlakyStore


class Died(BaseException):
    """A process ended; not an `Exception`, so nothing in the house handles it."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


class Fuse:
    """Counts its owner's durable steps and dies after one of them.

    Parameters
    ----------
    dies_after : int or None
        0: before the first step. None: never.
    pause : (int, callable) or None
        Before step n (from 1) the callable runs: what others do while the owner stands
        still between its last check and its next durable step.
    tears : bool
        If the step it dies after is an append, half of it is there.
    """

    def __init__(
        self,
        owner: str,
        dies_after: int | None = None,
        pause: tuple[int, Callable[[], None]] | None = None,
        *,
        tears: bool = False,
    ) -> None:
        self.owner = owner
        self.names: list[str] = []
        self.dead = False
        self._dies_after = dies_after
        self._pause = pause
        self._tears = tears

    def cut(self, data: bytes) -> bytes:
        """Return what of an append is there: half, if the owner dies in it."""
        last = self._tears and len(self.names) + 1 == self._dies_after
        return data[: len(data) // 2] if last else data

    def ready(self) -> None:
        """Go on to a durable step, unless dead."""
        if self.dead or self._dies_after == 0:
            self.dead = True
            raise Died(self.owner)
        if self._pause is not None and self._pause[0] == len(self.names) + 1:
            (_, act), self._pause = self._pause, None
            act()

    def burn(self, name: str) -> None:
        """Count a durable step that is done."""
        self.names.append(name)
        if len(self.names) == self._dies_after:
            self.dead = True
            raise Died(self.owner)


class Full(Fuse):
    """Its owner's disks are full after so many durable steps; it lives on.

    Parameters
    ----------
    after : int
    """

    def __init__(self, owner: str, after: int) -> None:
        super().__init__(owner)
        self._after = after

    def ready(self) -> None:
        super().ready()
        if len(self.names) >= self._after:
            raise StorageError("could not write: No space left on device")


class Until(Fuse):
    """Dies after so many durable steps of a name."""

    def __init__(self, owner: str, name: str, times: int = 1) -> None:
        super().__init__(owner)
        self._name, self._times = name, times

    def burn(self, name: str) -> None:
        super().burn(name)
        if self.names.count(self._name) == self._times:
            self.dead = True
            raise Died(self.owner)


class FusedDisk:
    """A disk of a process that may die after any change."""

    def __init__(self, disk: FakeDisk, fuse: Fuse) -> None:
        self._disk = disk
        self._fuse = fuse

    def read(self, path: Path, max_bytes: int) -> bytes:
        return self._disk.read(path, max_bytes)

    def write_once(self, path: Path, data: bytes) -> None:
        self._fuse.ready()
        self._disk.write_once(path, data)
        self._fuse.burn(f"write {path.name}")

    def append(self, path: Path, data: bytes) -> None:
        self._fuse.ready()
        self._disk.append(path, self._fuse.cut(data))
        self._fuse.burn(f"append {path.name}")

    def truncate(self, path: Path, size: int) -> None:
        self._fuse.ready()
        self._disk.truncate(path, size)
        self._fuse.burn(f"truncate {path.name}")

    def delete(self, path: Path) -> None:
        self._fuse.ready()
        self._disk.delete(path)
        self._fuse.burn(f"delete {path.name}")

    def listdir(self, path: Path) -> tuple[str, ...]:
        return self._disk.listdir(path)

    def lock(self, path: Path) -> Lock:
        return self._disk.lock(path)


class Turns:
    """Streams into several stores at once end in the stores' order.

    So that a death in the midst of them leaves the same behind each time.

    Parameters
    ----------
    stores : int
        How many are written side by side.
    """

    def __init__(self, stores: int = 1) -> None:
        self._stores, self._next = stores, 0
        self._turn = threading.Condition()

    @contextmanager
    def of(self, place: int) -> Iterator[None]:
        """Wait for the turn of a store; it is the next one's at the end."""
        with self._turn:
            assert self._turn.wait_for(lambda: self._next == place, timeout=60.0)
        try:
            yield
        finally:
            with self._turn:
                self._next = (place + 1) % self._stores
                self._turn.notify_all()


class FusedStore:
    """A store as a process that may die after any change sees it.

    Parameters
    ----------
    store : FlakyStore
    fuse : Fuse
    turns : Turns, optional
        Shared by the stores of one writer.
    place : int
        Its place among them.
    """

    def __init__(
        self,
        store: FlakyStore,
        fuse: Fuse,
        turns: Turns | None = None,
        place: int = 0,
    ) -> None:
        self._store = store
        self._fuse = fuse
        self._turns, self._place = turns or Turns(), place

    def get(self, key: str, max_bytes: int) -> bytes:
        return self._store.get(key, max_bytes)

    def put(self, key: str, value: bytes) -> None:
        self._fuse.ready()
        self._store.put(key, value)
        self._fuse.burn(f"put {key}")

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        taken: list[bytes] = []
        failed: BaseException | None = None
        try:
            taken += map(bytes, pieces)
        except BaseException as error:  # noqa: BLE001 - it has its turn all the same
            failed = error
        with self._turns.of(self._place):
            if failed is not None:
                raise failed
            self.put(key(), b"".join(taken))

    @contextmanager
    def get_stream(self, key: str, max_bytes: int) -> Iterator[Readable]:
        with self._store.get_stream(key, max_bytes) as file:
            yield file

    def keys(self, prefix: str) -> tuple[str, ...]:
        return self._store.keys(prefix)

    def room(self) -> int | None:
        return self._store.room()

    def delete(self, key: str) -> None:
        self._fuse.ready()
        self._store.delete(key)
        self._fuse.burn(f"delete {key}")


class FusedJournal:
    """The journal as a process that may die after any write sees it."""

    def __init__(self, journal: Journal, fuse: Fuse) -> None:
        self._journal = journal
        self._fuse = fuse

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        self._fuse.ready()
        self._journal.append(term, entries)
        self._fuse.burn(f"journal {entries[0].step}")

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        return self._journal.entries(run, first_round)

    def head(self, run: str) -> Head | None:
        return self._journal.head(run)

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        self._fuse.ready()
        self._journal.advance(term, expected, new, closed)
        self._fuse.burn("head")
