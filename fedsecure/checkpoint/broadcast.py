"""One stream to several stores at once: no copy of the whole, and nobody waits for one.

Stores that take pieces are written side by side as these are made; for others, the
pieces are joined in memory meanwhile.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from fedsecure.checkpoint.call import Call, Moved
from fedsecure.checkpoint.fanout import Fanout
from fedsecure.checkpoint.patience import Patience
from fedsecure.checkpoint.single import passing
from fedsecure.errors import StorageError
from fedsecure.outgoing import Bytes
from fedsecure.stores import StreamingStore

_SLOWEST = 10e6
"""Bytes a second of a store that is not given up while it makes them durable."""

Put = Callable[[StreamingStore, Iterable[Bytes]], None]
"""What is done in each store's own thread."""


class Broadcast:
    """A stream on its way.

    Parameters
    ----------
    patience : Patience
    stores : sequence of (str, StreamingStore)
    depth : int
        A piece may change once `depth` - 1 more were taken.
    need : int
        How many of these stores suffice.
    joins : bool
        Whether the whole is wanted as well.
    """

    def __init__(
        self,
        patience: Patience,
        stores: Sequence[tuple[str, StreamingStore]],
        depth: int,
        need: int,
        *,
        joins: bool,
    ) -> None:
        self._patience, self._stores, self._joins = patience, stores, joins
        readers, bounds = len(stores) + joins, patience.bounds
        self._calls: list[Call[None]] = []
        dropped = partial(_give_up, self._calls)  # not of self: that were a cycle
        self._fan = Fanout(readers, depth, need + joins, bounds, dropped)
        self._whole: Call[bytes] | None = None

    def send(self, pieces: Iterable[Bytes], put: Put) -> None:
        """Hand all pieces to every store; return when they were handed over.

        What the source raises is raised, after the stores have ended or were left.
        """
        self._calls += [
            self._patience.begin(name, partial(self._one, place, store, put))
            for place, (name, store) in enumerate(self._stores)
        ]
        for place, call in enumerate(self._calls):
            if call.failed is not None:  # it may have been refused
                self._fan.leave(place)
        if self._joins:
            self._whole = Call("", self._joined).start()
        try:
            self._fan.feed(pieces)
        except BaseException:
            for _ in self.answers(lambda: True):
                continue
            raise

    def answers(
        self, enough: Callable[[], bool], size: int = 0
    ) -> Iterator[Call[None]]:
        """Yield each store's call when it is over or left; see `Patience.gather`.

        Its last step, making `size` bytes durable, shows no sign of life: a slow disk
        may take its time for it.
        """
        linger = max(self._patience.bounds.linger, size / _SLOWEST)
        return self._patience.gather(self._calls, enough, linger)

    def whole(self) -> bytes:
        """Return the pieces joined, once all were sent."""
        if self._whole is None:
            raise StorageError("the whole of a stream was not asked for")
        self._whole.wait(self._patience.bounds.longest)
        return self._whole.result()

    def _one(self, place: int, store: StreamingStore, put: Put, moved: Moved) -> None:
        try:
            put(store, passing(self._fan.read(place), moved))
        finally:
            self._fan.leave(place)

    def _joined(self, moved: Moved) -> bytes:
        out = io.BytesIO()
        out.writelines(passing(self._fan.read(len(self._stores)), moved))
        return out.getvalue()


def _give_up(calls: Sequence[Call[None]], place: int) -> None:
    if place < len(calls):  # who joins them is no store
        calls[place].give_up()
