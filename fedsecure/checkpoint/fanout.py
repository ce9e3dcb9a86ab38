"""One stream to several readers side by side; the slowest sets the pace.

So that memory is bounded by a few pieces, however large the stream. A reader that takes
no piece any more is dropped after a while: the others go on without it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator

from fedsecure.checkpoint.patience import Bounds
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
    need : int
        So many readers suffice: while as many go on, one that stands still is dropped
        after twice `Bounds.linger` seconds, else after `Bounds.longest`.
    bounds : Bounds
    dropped : callable
        Told the place of each reader that is dropped.
    """

    def __init__(
        self,
        readers: int,
        depth: int,
        need: int,
        bounds: Bounds,
        dropped: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._turn = threading.Condition()
        self._depth, self._need, self._bounds = depth, need, bounds
        self._told, self._dropped = dropped, set[int]()
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
            The source failed, or this reader was dropped: what was read is not all,
            and the piece at hand may have changed meanwhile.
        """
        at = 0
        try:
            while (piece := self._piece(place, at)) is not None:
                yield piece
                at += 1
                self._through(place, at)
        finally:
            self.leave(place)

    def leave(self, place: int) -> None:
        """Count on a reader no longer. Idempotent."""
        self._through(place, _GONE)

    def _wait_for_room(self) -> None:
        """Return once the next piece may take the place of the one `depth` before."""
        waited, linger, before = 0.0, self._bounds.linger, set[int]()
        while slow := self._wait(linger):
            waited += linger
            going = sum(done < _GONE for done in self._done) - len(slow)
            # The first wait may have passed while this process was stopped: what nobody
            # saw is held against nobody, so it takes two.
            if going >= self._need or waited >= self._bounds.longest:
                for place in before & set(slow):
                    self._drop(place)
            before = set(slow)

    def _wait(self, linger: float) -> list[int]:
        """Return who holds the next piece up, after `linger` seconds; [] at once."""

        def slow() -> list[int]:
            least = self._made - self._depth
            return [place for place, done in enumerate(self._done) if done <= least]

        with self._turn:
            self._turn.wait_for(lambda: not slow(), timeout=linger)
            return slow()

    def _drop(self, place: int) -> None:
        with self._turn:
            self._dropped.add(place)
        self.leave(place)
        self._told(place)

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

    def _piece(self, place: int, at: int) -> Bytes | None:
        with self._turn:
            self._turn.wait_for(lambda: self._made > at or self._over)
            if place in self._dropped:
                raise StorageError("it stood still, and was left behind")
            if self._failed:
                raise StorageError("what was to be written could not be made")
            return self._held[at] if at < self._made else None

    def _through(self, place: int, count: int) -> None:
        with self._turn:
            self._done[place] = max(self._done[place], count)
            if min(self._done) >= _GONE:
                self._held.clear()
            self._turn.notify_all()
