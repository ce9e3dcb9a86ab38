"""A store in a dict that can be down, lose power at a put, or change its bytes."""

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from fedsecure.disk import Readable
from fedsecure.errors import AlreadyExists, NotFound, StorageError, VerificationError
from fedsecure.outgoing import Bytes
from fedsecure.stores import check_key, folder_of
from tests.fakes.disk import PowerLost


class Power:
    """What all stores of one writer share: it dies before its n-th put or delete."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.steps = 0
        self._turn = threading.Lock()

    def step(self) -> None:
        """Count one durable step, or die before it; dead stays dead."""
        with self._turn:
            if self.dies_at is not None and self.steps + 1 >= self.dies_at:
                raise PowerLost
            self.steps += 1


class FlakyStore:
    """Write once, in memory.

    Attributes
    ----------
    objects : dict of str to bytes
        What it holds; a test may change it, as a bad disk or an attacker does.
    down : bool
        Every call is refused with `StorageError`.
    left : int or None
        Bytes it has room for; None: it cannot tell, and takes all.
    power : Power
        The writer's; give a new one to go on after its death.
    """

    def __init__(self, power: Power | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.down = False
        self.left: int | None = None
        self.power = power or Power()
        self._turn = threading.Lock()

    def get(self, key: str, max_bytes: int) -> bytes:
        self._reach()
        value = self.objects.get(check_key(key))
        if value is None:
            raise NotFound(f"{key}: no such object")
        if len(value) > max_bytes:
            raise VerificationError(f"{key}: {len(value)} bytes, at most {max_bytes}")
        return value

    def put(self, key: str, value: bytes) -> None:
        self._reach()
        with self._turn:
            if check_key(key) in self.objects:
                raise AlreadyExists(f"{key} exists")
            if self.left is not None and len(value) > self.left:
                raise StorageError(f"could not write {key}: No space left on device")
            self.power.step()
            self.objects[key] = bytes(value)
            self._take(len(value))

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        data = b"".join(map(bytes, pieces))
        self.put(key(), data)

    @contextmanager
    def get_stream(self, key: str, max_bytes: int) -> Iterator[Readable]:
        yield io.BytesIO(self.get(key, max_bytes))

    def keys(self, prefix: str) -> tuple[str, ...]:
        self._reach()
        folder_of(prefix)
        return tuple(sorted(k for k in tuple(self.objects) if k.startswith(prefix)))

    def delete(self, key: str) -> None:
        self._reach()
        check_key(key)
        self.power.step()
        self._take(-len(self.objects.pop(key, b"")))

    def room(self) -> int | None:
        return self.left

    def flip(self, key: str, at: int = -1) -> None:
        """Change one bit of an object."""
        data = bytearray(self.objects[key])
        data[at] ^= 1
        self.objects[key] = bytes(data)

    def _take(self, size: int) -> None:
        if self.left is not None:
            self.left -= size

    def _reach(self) -> None:
        if self.down:
            raise StorageError("store is down")
