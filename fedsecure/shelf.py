"""What a site keeps of its runs: plan, layout, models by round, and the outbox.

All of it lies in a Store, so every object is durable before the site acts on it, and
none is ever overwritten: a repeated request finds the same bytes (RESILIENCE S2).
An answer's body is larger than what a site wants in memory, so it lies there in pieces;
its head is written last, and the answer exists only when its head does.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fedsecure.envelope import MAX_HEAD_BYTES, Head, canonical, read_head
from fedsecure.errors import AlreadyExists, NoRoom, NotFound, VerificationError
from fedsecure.outgoing import Bytes, Outgoing, recut
from fedsecure.ranges import Ranges, read_ranges
from fedsecure.stores import RoomyStore, Store
from fedsecure.trainer import JSON
from fedsecure.update import Layout, Vector

PIECE_BYTES = 2 << 20
"""Largest piece of a body; a chunk of ciphertext is a little smaller."""
_SMALL = 1 << 20
_FLOAT_BYTES = 8
_SPARE = 4 << 20
"""Bytes that stay free: a head, lines of the ledger beside it, whole disk blocks."""
_COUNT = struct.Struct("<I")  # behind a head: the pieces of its body
_LARGEST_HEAD = MAX_HEAD_BYTES + _SMALL

Sealing: TypeAlias = Callable[[int, str], Head]
"""(length of a body, its SHA-256 as hexadecimal) -> the signed head."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer in the outbox: its head in memory, its body still in the store.

    Attributes
    ----------
    head : Head
    outgoing : Outgoing
        The whole answer, byte by byte as it was first sent.
    """

    head: Head
    outgoing: Outgoing

    def check(self) -> None:
        """Read the body, a piece at a time, and return only if it is the head's.

        Raises
        ------
        VerificationError
            A piece was changed or is of another length.
        NotFound
            A piece is missing.
        """
        found, left = hashlib.sha256(), len(self.head.to_bytes())
        for piece in self.outgoing.pieces():
            found.update(memoryview(piece)[left:])
            left = max(left - len(piece), 0)
        if found.hexdigest() != self.head.body_sha256:
            scope = self.head.scope
            raise VerificationError(
                f"the outbox's answer to round {scope.round.number} of "
                f"{scope.round.run} was changed on the disk"
            )


@dataclass(frozen=True, slots=True)
class Shelf:
    """One run's shelf in a site's store.

    Attributes
    ----------
    store : Store
    run : str
    max_bytes : int
        Largest object that is read back; bytes.
    """

    store: Store
    run: str
    max_bytes: int

    def plan(self) -> Mapping[str, JSON] | None:
        """Return the plan the run was joined under, or None."""
        data = self._read("plan", _SMALL)
        return None if data is None else _object(data)

    def keep_plan(self, document: Mapping[str, JSON]) -> None:
        """Keep the plan.

        Raises
        ------
        AlreadyExists
            The run was joined under another plan, which stays. The other `keep` verbs
            raise it too: what is on the shelf never changes.
        """
        self._keep("plan", canonical(document))

    def layout(self) -> Layout | None:
        """Return the layout of the run's model, or None before the first request."""
        data = self._read("layout", _SMALL)
        return None if data is None else read_layout(data)

    def model(self, number: int) -> Vector | None:
        """Return the model after round `number` (0: the first model), or None."""
        data = self._read(f"model/{number}", self.max_bytes)
        if data is None:
            return None
        if len(data) % _FLOAT_BYTES:
            raise VerificationError(
                f"model {number} has {len(data)} bytes, not float64"
            )
        return np.frombuffer(data, dtype="<f8")

    def model_beyond(self, number: int) -> Vector | None:
        """Return the newest model kept, if it is of a round after `number`."""
        names = (k.rsplit("/", 1)[1] for k in self.store.keys(f"{self.run}/model/"))
        newest = max((int(name) for name in names if name.isdecimal()), default=0)
        return self.model(newest) if newest > number else None

    def keep_first_model(self, layout: Layout, model: Vector) -> None:
        """Keep first model, then layout: where a layout is, the model is too."""
        self.keep_model(0, model)
        self._keep("layout", canonical(layout.document()))

    def keep_model(self, number: int, model: Vector) -> None:
        """Keep the model after round `number`."""
        self._keep(f"model/{number}", model.astype("<f8", copy=False).tobytes())

    def forget_models(self, before: int) -> None:
        """Remove models and ranges of rounds below `before`; the first model stays."""
        for folder in ("model", "ranges"):
            for key in self.store.keys(f"{self.run}/{folder}/"):
                name = key.rsplit("/", 1)[1]
                if name.isdecimal() and 0 < int(name) < before:
                    self.store.delete(key)

    def ranges(self, number: int) -> Ranges | None:
        """Return the ranges of rounds that build on round `number`, or None."""
        data = self._read(f"ranges/{number}", _SMALL)
        return None if data is None else read_ranges(data)

    def keep_ranges(self, number: int, ranges: Ranges) -> None:
        """Keep the ranges that follow from the sum of round `number`."""
        self._keep(f"ranges/{number}", canonical(ranges.document()))

    def answer(self, number: int) -> Kept | None:
        """Return the outbox's answer to round `number` (0: the run key), or None.

        Raises
        ------
        VerificationError
            What lies there is not a head, or is for a body above `max_bytes`.
        """
        data = self._read(f"out/{number}", _LARGEST_HEAD)
        if data is None:
            return None
        head, end = read_head(data)
        if len(data) != end + _COUNT.size:
            raise VerificationError(f"the outbox's head of round {number} was cut")
        size = end + head.body_bytes
        if size > self.max_bytes:
            raise VerificationError(f"answer of {size} bytes, at most {self.max_bytes}")
        (count,) = _COUNT.unpack_from(data, end)
        return self._kept(number, head, count)

    def require_room(self, number: int, need: int) -> None:
        """Return only if the store can take `need` more bytes, as far as it can tell.

        Asked before an answer is paid for; what an attempt that died left of this one
        is removed first, as `keep_answer` does.

        Raises
        ------
        NoRoom
            It has less, or little more.
        """
        self._clear(number)
        room = self.store.room() if isinstance(self.store, RoomyStore) else None
        if room is not None and room < need + _SPARE:
            raise NoRoom(
                f"round {number} of {self.run}: {room} bytes are free on the disk of "
                f"the shelf, its answer and the next model take {need} and {_SPARE} "
                "must stay: free space on that disk or take a larger one. Nothing was "
                "paid; the run's next round is tried again"
            )

    def keep_answer(self, number: int, chunks: Iterable[Bytes], seal: Sealing) -> Kept:
        """Put an answer into the outbox, before it may leave: body first, head last.

        Parameters
        ----------
        chunks : iterable of bytes-like
            The body, in any cut; each piece is durable before the next is asked for.
        seal : callable
            Makes the head once the body is there.

        Raises
        ------
        AlreadyExists
            The round was answered; that answer stays.
        """
        if self._read(f"out/{number}", _LARGEST_HEAD) is not None:
            raise AlreadyExists(f"{self.run}/out/{number} exists")
        self._clear(number)
        found, size, count = hashlib.sha256(), 0, 0
        for piece in recut(chunks, PIECE_BYTES):
            self.store.put(self._piece(number, count), piece)
            found.update(piece)
            size, count = size + len(piece), count + 1
        head = seal(size, found.hexdigest())
        self.store.put(f"{self.run}/out/{number}", head.to_bytes() + _COUNT.pack(count))
        return self._kept(number, head, count)

    def _clear(self, number: int) -> None:
        """Remove what an attempt that died left: pieces of another ciphertext."""
        for key in self.store.keys(f"{self.run}/body/{number}/"):
            self.store.delete(key)

    def _kept(self, number: int, head: Head, count: int) -> Kept:
        start = head.to_bytes()

        def pieces() -> Iterator[bytes]:
            yield start
            for i in range(count):
                yield self.store.get(self._piece(number, i), self.max_bytes)

        return Kept(head, Outgoing(len(start) + head.body_bytes, pieces))

    def _piece(self, number: int, index: int) -> str:
        # Not below the head's key: a name is not a folder too in a file system.
        return f"{self.run}/body/{number}/{index}"

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            return self.store.get(f"{self.run}/{name}", limit)
        except NotFound:
            return None

    def _keep(self, name: str, data: bytes) -> None:
        try:
            self.store.put(f"{self.run}/{name}", data)
        except AlreadyExists:
            if self._read(name, max(len(data), self.max_bytes, _SMALL)) != data:
                raise


def read_layout(data: bytes) -> Layout:
    """Return the layout that JSON bytes describe.

    Raises
    ------
    VerificationError
        Not a list of [name, [sizes]] with positive sizes.
    """
    try:
        rows = json.loads(data)
        pairs = [(str(name), tuple(int(s) for s in shape)) for name, shape in rows]
    except (ValueError, TypeError, OverflowError, RecursionError) as bad:
        raise VerificationError("layout is not a list of [name, shape]") from bad
    if not pairs or any(size <= 0 for _, shape in pairs for size in shape):
        raise VerificationError("layout is empty or holds a size below 1")
    return Layout(tuple(n for n, _ in pairs), tuple(s for _, s in pairs))


def _object(data: bytes) -> Mapping[str, JSON]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as bad:
        raise VerificationError("the plan on the shelf is not JSON") from bad
    if not isinstance(value, dict):
        raise VerificationError("the plan on the shelf is not a JSON object")
    return value
