"""One stream to several readers side by side; the slowest sets the pace.

So that memory is bounded by a few pieces, however large the stream.
"""

import threading
from collections.abc import Iterable, Iterator

from fedsecure.errors import StorageError
from fedsecure.outgoing import Bytes

_GONE = 1 << 62
"""How far a reader is that takes no more: it holds nobody back."""


class Fanout:
    """Pieces that each of `readers` threads takes in order.

    Parameters
    ----------
    readers : int
    depth : int
        A piece is given up by its source once `depth` - 1 more were taken from it.
    """

    def __init__(self, readers: int, depth: int) -> None:
        self._turn = threading.Condition()
        self._depth = depth
        self._done = [0] * readers  # pieces each reader is through with
        self._held: dict[int, Bytes] = {}
        self._made = 0
        self._over = self._failed = False

    def feed(self, pieces: Iterable[Bytes]) -> None:
        """Hand all pieces out, one after the other; returns when each was handed over.

        A source that fails ends every reader with `StorageError`.
        """
        source = iter(pieces)
        try:
            while True:
                self._wait_for_room()
                piece = next(source, None)
                if piece is None:
                    break
                self._offer(piece)
        except BaseException:
            self._end(failed=True)
            raise
        self._end(failed=False)

    def read(self, place: int) -> Iterator[Bytes]:
        """Yield the pieces to one reader; each is through with at the next.

        Raises
        ------
        StorageError
            The source failed: what was read is not all.
        """
        at = 0
        try:
            while (piece := self._piece(at)) is not None:
                yield piece
                at += 1
                self._through(place, at)
        finally:
            self.leave(place)

    def leave(self, place: int) -> None:
        """Count on a reader no longer. Idempotent."""
        self._through(place, _GONE)

    def _wait_for_room(self) -> None:
        with self._turn:
            # The next piece takes the place of the one `depth` before it.
            self._turn.wait_for(lambda: self._made - min(self._done) < self._depth)

    def _offer(self, piece: Bytes) -> None:
        with self._turn:
            self._held.pop(self._made - self._depth, None)
            self._held[self._made] = piece
            self._made += 1
            self._turn.notify_all()

    def _end(self, *, failed: bool) -> None:
        with self._turn:
            self._over, self._failed = True, failed
            self._turn.notify_all()

    def _piece(self, at: int) -> Bytes | None:
        with self._turn:
            self._turn.wait_for(lambda: self._made > at or self._over)
            if self._failed:
                raise StorageError("what was to be written could not be made")
            return self._held[at] if at < self._made else None

    def _through(self, place: int, count: int) -> None:
        with self._turn:
            self._done[place] = max(self._done[place], count)
            self._turn.notify_all()
