"""A store in one folder, durable through `disk`."""

from collections.abc import Mapping
from pathlib import Path

from fedsecure.disk import Disk, SystemDisk
from fedsecure.errors import ConfigurationError
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
