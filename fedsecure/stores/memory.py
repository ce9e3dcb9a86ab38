"""A store in a dict: for tests and `inprocess` runs; gone with its process."""

import threading
from collections.abc import Mapping

from fedsecure.errors import AlreadyExists, NotFound, VerificationError
from fedsecure.stores import Store, check_key, folder_of


class MemoryStore:
    """Write once, in memory; safe between threads."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return the object; see `Store`."""
        value = self._objects.get(check_key(key))
        if value is None:
            raise NotFound(f"{key}: no such object")
        if len(value) > max_bytes:
            raise VerificationError(f"{key}: {len(value)} bytes, at most {max_bytes}")
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a new object; see `Store`."""
        with self._lock:
            if check_key(key) in self._objects:
                raise AlreadyExists(f"{key} exists")
            self._objects[key] = bytes(value)

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return keys that start with `prefix`, sorted."""
        folder_of(prefix)
        return tuple(sorted(k for k in tuple(self._objects) if k.startswith(prefix)))

    def delete(self, key: str) -> None:
        """Forget the object."""
        self._objects.pop(check_key(key), None)


def create(settings: Mapping[str, object]) -> Store:
    """Return an empty store; it has no settings."""
    _ = settings
    return MemoryStore()
