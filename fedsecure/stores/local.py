"""A store in one folder, durable through `disk`."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from fedsecure.disk import Disk, Readable, StreamingDisk, SystemDisk
from fedsecure.errors import ConfigurationError
from fedsecure.outgoing import Bytes
from fedsecure.stores import Store, check_key, folder_of, is_key


class LocalStore:
    """Objects as files below `root`; a key's parts are folders and the file's name."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._root = root
        self._disk = disk

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return the object; see `Store`."""
        return self._disk.read(self._path(key), max_bytes)

    def put(self, key: str, value: bytes) -> None:
        """Write a new file; see `Store`."""
        self._disk.write_once(self._path(key), value)

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        """Write a new file piece by piece; see `StreamingStore`."""
        if isinstance(self._disk, StreamingDisk):
            self._disk.write_stream(self._root, pieces, lambda: self._path(key()))
            return
        data = b"".join(map(bytes, pieces))
        self._disk.write_once(self._path(key()), data)

    @contextlib.contextmanager
    def get_stream(self, key: str, max_bytes: int) -> Iterator[Readable]:
        """Open the file; see `StreamingStore`."""
        if isinstance(self._disk, StreamingDisk):
            with self._disk.open_stream(self._path(key), max_bytes) as file:
                yield file
        else:
            yield io.BytesIO(self._disk.read(self._path(key), max_bytes))

    def room(self) -> int | None:
        """Return how many bytes the folder's disk has left; see `RoomyStore`."""
        if not isinstance(self._disk, StreamingDisk):
            return None
        return self._disk.free(self._root)

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return keys that start with `prefix`, sorted."""
        folder = folder_of(prefix)
        found = self._disk.listdir(self._root / folder)
        names = (f"{folder}/{name}" if folder else name for name in found)
        return tuple(n for n in names if n.startswith(prefix) and is_key(n))

    def delete(self, key: str) -> None:
        """Remove the file."""
        self._disk.delete(self._path(key))

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)


def create(settings: Mapping[str, object]) -> Store:
    """Return the store in ``settings["path"]``; the folder is made when written to.

    Raises
    ------
    ConfigurationError
        No path, or a relative one.
    """
    path = settings.get("path")
    if not isinstance(path, str | Path) or not Path(path).is_absolute():
        raise ConfigurationError(f"store path={path!r}, must be an absolute folder")
    return LocalStore(Path(path), SystemDisk())
