"""Bytes on their way out: how many, and they themselves piece by piece.

A node daemon never holds a whole encrypted answer: it is written to the outbox, hashed
and sent in pieces (ENCRYPTION section 10). Pure.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from fedsecure.errors import VerificationError

Bytes: TypeAlias = bytes | bytearray | memoryview
"""What holds bytes; a memoryview is one of bytes ("B")."""


class Outgoing:
    """Bytes that are read when they are sent, and not before.

    Parameters
    ----------
    size : int
        How many; bytes.
    read : callable
        () -> the pieces, in order; asked anew each time the bytes are wanted.
    """

    __slots__ = ("_read", "_size")

    def __init__(self, size: int, read: Callable[[], Iterable[Bytes]]) -> None:
        self._size = size
        self._read = read

    @classmethod
    def of(cls, *pieces: Bytes) -> "Outgoing":
        """Return pieces that lie in memory already; they are not copied."""
        return cls(sum(map(len, pieces)), lambda: pieces)

    def __len__(self) -> int:
        """Return how many bytes there are; nothing is read."""
        return self._size

    def pieces(self) -> Iterator[Bytes]:
        """Yield the bytes, piece by piece; never more of them than announced.

        Raises
        ------
        VerificationError
            The pieces do not add up to the size announced.
        """
        left = self._size
        for piece in self._read():
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise VerificationError(
                f"{self._size - left} bytes on their way out, {self._size} announced"
            )

    def to_bytes(self) -> bytes:
        """Return all of them at once; one piece of `bytes` is returned as it is."""
        found = self.pieces()
        first = next(found, b"")
        out = io.BytesIO()  # unlike a join, it holds the bytes once
        for piece in found:
            out.write(first)
            out.write(piece)
            first = b""
        return bytes(first) or out.getvalue()


def recut(pieces: Iterable[Bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of `size` bytes; the last may be shorter."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while len(held) + len(view) >= size:
            cut = size - len(held)
            yield b"".join((held, view[:cut]))
            held.clear()
            view = view[cut:]
        held += view
    if held:
        yield bytes(held)
