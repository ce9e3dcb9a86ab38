"""A disk in memory that loses power: what was not durable by then is gone or torn."""

from dataclasses import dataclass, field
from pathlib import Path

from fedsecure.disk import Lock, LockHeld
from fedsecure.errors import AlreadyExists, NotFound, StorageError, VerificationError


class PowerLost(BaseException):
    """The machine is off; not an `Exception`, so nothing in the house handles it."""


class FakeLock(Lock):
    """A lock of a `FakeDisk`; gone with the power, as a process's locks are."""

    def __init__(self, disk: "FakeDisk", path: Path) -> None:
        self._disk = disk
        self._path = path

    @property
    def held(self) -> bool:
        return self._disk.locks.get(self._path) is self

    def release(self) -> None:
        if self.held:
            del self._disk.locks[self._path]


@dataclass
class FakeDisk:
    """Files as bytes, in two layers: what is durable, and what is only written.

    Each change is two steps, the write and the sync, as on a real disk. `fail_at=n`
    ends step n with `PowerLost`; `restart` then brings the disk back.

    Attributes
    ----------
    fail_at : int or None
        The step at which power is lost; None never.
    full : bool
        Every change is refused with `StorageError`, as by ENOSPC.
    lying : bool
        Syncs do nothing: what a deleted fsync or a lying device looks like.
    """

    fail_at: int | None = None
    full: bool = False
    lying: bool = False
    steps: int = 0
    durable: dict[Path, bytes] = field(default_factory=dict)
    cached: dict[Path, bytes] = field(default_factory=dict)
    locks: dict[Path, FakeLock] = field(default_factory=dict)
    whole: set[Path] = field(default_factory=set)
    off: bool = False

    def read(self, path: Path, max_bytes: int) -> bytes:
        self._powered()
        if path not in self.cached:
            raise NotFound(f"{path}: no such file")
        data = self.cached[path]
        if len(data) > max_bytes:
            raise VerificationError(f"{path}: {len(data)} bytes, at most {max_bytes}")
        return data

    def write_once(self, path: Path, data: bytes) -> None:
        self._powered()
        if path in self.cached:
            self._sync(path)
            raise AlreadyExists(f"{path} exists")
        # The temporary file is written and synced under another name: no torn bytes.
        self._step()
        self.whole.add(path)
        self.cached[path] = bytes(data)
        self._sync(path)

    def append(self, path: Path, data: bytes) -> None:
        self._step()
        self.cached[path] = self.cached.get(path, b"") + data
        self._sync(path)

    def truncate(self, path: Path, size: int) -> None:
        self._step()
        self.cached[path] = self.cached[path][:size]
        self._sync(path)

    def delete(self, path: Path) -> None:
        self._step()
        self.cached.pop(path, None)
        self._sync(path)

    def listdir(self, path: Path) -> tuple[str, ...]:
        self._powered()
        inside = [p for p in self.cached if p.is_relative_to(path) and p != path]
        return tuple(sorted(str(p.relative_to(path)) for p in inside))

    def lock(self, path: Path) -> FakeLock:
        self._powered()
        if path in self.locks:
            raise LockHeld(f"{path} is locked by process 1; end it first")
        self.locks[path] = FakeLock(self, path)
        return self.locks[path]

    def restart(self, *, survives: int = 0) -> "FakeDisk":
        """Return the disk after power came back.

        Parameters
        ----------
        survives : int
            How many bytes of an append that was not synced are there all the same;
            if any, a file of `write_once` is there with all its bytes.
        """
        files = dict(self.durable)
        for path, data in self.cached.items():
            kept = files.get(path, b"")
            if survives and data.startswith(kept) and data != kept:
                torn = data[: len(kept) + survives]
                files[path] = data if path in self.whole else torn
        return FakeDisk(durable=dict(files), cached=dict(files))

    def flip(self, path: Path, at: int, mask: int = 1) -> None:
        """Change bits of one byte, as a bad sector does."""
        data = bytearray(self.cached[path])
        data[at] ^= mask
        self.cached[path] = self.durable[path] = bytes(data)

    def _powered(self) -> None:
        if self.off:
            raise PowerLost

    def _step(self) -> None:
        self._powered()
        if self.full:
            raise StorageError("could not write: No space left on device")
        self.steps += 1
        if self.steps == self.fail_at:
            self.off = True
            self.locks.clear()
            raise PowerLost

    def _sync(self, path: Path) -> None:
        self._step()
        if self.lying:
            return
        if path in self.cached:
            self.durable[path] = self.cached[path]
        else:
            self.durable.pop(path, None)
