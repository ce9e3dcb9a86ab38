"""The disk as an argument: what is durable when; the seam where tests lose power."""

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from fedsecure.errors import AlreadyExists, NotFound, StorageError, VerificationError

Piece: TypeAlias = bytes | bytearray | memoryview
"""Bytes of a file; a memoryview is one of bytes ("B")."""


class Readable(Protocol):
    """A file that is read in order."""

    def readinto(self, into: memoryview, /) -> int | None:
        """Fill the beginning of a buffer and return how much of it; 0 at the end."""
        ...


class LockHeld(StorageError):
    """Somebody else holds the lock; any other `StorageError` means could not ask."""


class Lock:
    """An exclusive lock on a file, until `release` or the end of the process.

    A forked child never holds its parent's lock.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _open_locks.add(self)

    @property
    def held(self) -> bool:
        """Whether this process holds it."""
        return self in _open_locks

    def release(self) -> None:
        """Give the lock up; idempotent."""
        if self.held:
            _open_locks.discard(self)
            os.close(self._descriptor)


_LARGE = 1 << 20
_open_locks: set[Lock] = set()


def _close_locks_in_child() -> None:
    # A forked child that keeps the descriptor would keep the lock alive after its
    # parent's death (RESILIENCE section 5, hazards).
    for lock in tuple(_open_locks):
        with contextlib.suppress(OSError):
            lock.release()
    _open_locks.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)


class Disk(Protocol):
    """A file system as this house uses one: seven verbs, each durable on return."""

    def read(self, path: Path, max_bytes: int) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        NotFound
            No such file.
        VerificationError
            It is larger than `max_bytes`; it was not read.
        StorageError
            It could not be read.
        """
        ...

    def write_once(self, path: Path, data: bytes) -> None:
        """Make a new file with its folders: all of it or nothing, durable on return.

        Raises
        ------
        AlreadyExists
            The file was there; it is untouched.
        StorageError
            Not durable: the caller must not go on.
        """
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Add bytes to a file, making it if missing; durable on return."""
        ...

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to `size` bytes; durable on return."""
        ...

    def delete(self, path: Path) -> None:
        """Remove a file; durable on return. A missing one is no error."""
        ...

    def listdir(self, path: Path) -> tuple[str, ...]:
        """Return relative paths of all files below `path`, sorted; () if missing."""
        ...

    def lock(self, path: Path) -> Lock:
        """Take an exclusive lock without waiting.

        Raises
        ------
        LockHeld
            Somebody else holds it; names path and holder.
        StorageError
            Could not ask.
        """
        ...


@runtime_checkable
class StreamingDisk(Protocol):
    """A disk that also takes and gives a large file a piece at a time."""

    def write_stream(
        self, folder: Path, pieces: Iterable[Piece], path: Callable[[], Path]
    ) -> None:
        """As `write_once`, of pieces; each was written when the next is asked for.

        Parameters
        ----------
        folder : Path
            Where the pieces lie until they are whole; on the same file system.
        path : callable
            () -> the file's name, asked for after the last piece.
        """
        ...

    def open_stream(
        self, path: Path, max_bytes: int
    ) -> contextlib.AbstractContextManager[Readable]:
        """Return a file to be read in order; see `read`."""
        ...

    def free(self, path: Path) -> int:
        """Return how many bytes can still be written below a folder, there or not."""
        ...


class SystemDisk:
    """The machine's file system; fsync of file and folder.

    A name that a dead process made may not be durable yet: the first use of a name
    by this object syncs its folder again.
    """

    def __init__(self) -> None:
        self._named: set[Path] = set()

    def read(self, path: Path, max_bytes: int) -> bytes:
        """Return a file's bytes, refusing a larger file unread."""
        with _storage("read", path), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise VerificationError(f"{path}: {size} bytes, at most {max_bytes}")
            return file.read(size)

    def write_once(self, path: Path, data: bytes) -> None:
        """Write a temporary file beside `path`, sync it, link it, sync the folder.

        ``link`` fails if the name exists, so two writers never overwrite one another.
        """
        self.write_stream(path.parent, (data,), lambda: path)

    def write_stream(
        self, folder: Path, pieces: Iterable[Piece], path: Callable[[], Path]
    ) -> None:
        """Write a temporary file in `folder`, sync it, link it, sync the link's folder.

        ``link`` fails if the name exists, so two writers never overwrite one another.
        """
        self._make_folder(folder)
        temporary = folder / f".tmp-{uuid.uuid4().hex}"
        try:
            need = sum(map(len, pieces)) if isinstance(pieces, tuple) else 0
            with _storage("write", temporary, need):
                _write_synced(temporary, pieces)
            self._link(temporary, path())
        finally:
            with _storage("delete", temporary):
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def open_stream(self, path: Path, max_bytes: int) -> Iterator[Readable]:
        """Open a file, refusing a larger one unread."""
        with _storage("read", path), path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise VerificationError(f"{path}: {size} bytes, at most {max_bytes}")
            yield file

    def append(self, path: Path, data: bytes) -> None:
        """Append and sync; the folder too at the first append."""
        self._make_folder(path.parent)
        with _storage("append to", path, len(data)):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if path not in self._named:
                _sync_folder(path.parent)
                self._named.add(path)

    def truncate(self, path: Path, size: int) -> None:
        """Cut and sync."""
        with _storage("truncate", path), path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def delete(self, path: Path) -> None:
        """Unlink and sync the folder."""
        with _storage("delete", path):
            path.unlink(missing_ok=True)
            self._named.discard(path)
            # Also when it was missing: who removed it may have died before the sync.
            if path.parent.is_dir():
                _sync_folder(path.parent)

    def listdir(self, path: Path) -> tuple[str, ...]:
        """Walk the folder; temporary files of dead writers are left out."""
        with _storage("list", path):
            walk = os.walk(path, onerror=_raise) if path.is_dir() else ()
            files = (Path(folder, name) for folder, _, names in walk for name in names)
            found = (f for f in files if f.is_file() and not f.name.startswith(".tmp-"))
            return tuple(sorted(str(f.relative_to(path)) for f in found))

    def lock(self, path: Path) -> Lock:
        """Take a flock; the file then holds the holder's process id, for people."""
        self._make_folder(path.parent)
        with _storage("lock", path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            try:
                _flock(descriptor, path)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            except BaseException:
                os.close(descriptor)
                raise
            return Lock(descriptor)

    def free(self, path: Path) -> int:
        """Ask the file system, as far up as there is one."""
        with _storage("measure", path):
            return free_below(path)

    def _link(self, temporary: Path, path: Path) -> None:
        self._make_folder(path.parent)
        with _storage("write", path):
            try:
                os.link(temporary, path)
            except FileExistsError as exists:
                # Its writer may have died before it synced the folder.
                _sync_folder(path.parent)
                raise AlreadyExists(f"{path} exists") from exists
            _sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        with _storage("make", folder):
            if folder.is_dir():
                if folder in self._named:
                    return
                with contextlib.suppress(PermissionError):  # not made by us, then
                    _sync_folder(folder.parent)
            else:
                self._make_folder(folder.parent)
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(folder.parent)
        self._named.add(folder)


def free_below(path: Path) -> int:
    """Return the bytes free on the file system of a path, or of what is above it."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def no_room(path: Path, need: int = 0) -> str:
    """Return what to tell an operator whose disk is full; "" if it is not to be told.

    Parameters
    ----------
    need : int
        Bytes that were to be written; 0: not known.
    """
    try:
        free = free_below(path)
    except OSError:
        return ""
    wanted = f"{need} bytes were to be written, " if need else ""
    return (
        f" ({wanted}{free} are free there): free space on that disk or take a larger "
        "one, then start again; nothing was finished half, and the run goes on where "
        "it stopped"
    )


def require_room(folder: Path, need: int) -> None:
    """Return only if so many bytes are free where a folder lies.

    Raises
    ------
    StorageError
        There are fewer; what to do is said.
    """
    if free_below(folder) < need:
        raise StorageError(f"{folder}: No space left on device{no_room(folder, need)}")


@contextlib.contextmanager
def _storage(verb: str, path: Path, need: int = 0) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as missing:
        raise NotFound(f"{path}: no such file") from missing
    except OSError as failed:
        full = failed.errno in {errno.ENOSPC, errno.EDQUOT}
        why = f"could not {verb} {path}: {failed.strerror}"
        raise StorageError(why + (no_room(path, need) if full else "")) from failed


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as held:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        raise LockHeld(
            f"{path} is locked by process {holder or 'unknown'}; end it first"
        ) from held


def _raise(error: OSError) -> None:
    raise error


def _write_synced(path: Path, pieces: Iterable[Piece]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        written = 0
        for piece in pieces:
            _write_all(descriptor, piece)
            written += len(piece)
            if len(piece) >= _LARGE:
                # The device starts now, not at the sync: dirty pages that pile up are
                # held back by the kernel, and every other writer with them.
                os.posix_fadvise(descriptor, 0, written, os.POSIX_FADV_DONTNEED)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: Piece) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
