"""How long stores are waited for, and how many calls that never return are left behind.

A disk that hangs, unlike one that fails, says nothing: a call into it does not come
back, and its thread cannot be ended. So each call has a thread of its own (see `call`).
One that stands still is waited for while it is needed, and no longer than `Bounds` say;
then it is left behind, and its store is asked by nobody who can do without it until the
call returns. A store that ends its calls by itself (`TimedStore`) is waited for until
it does: its limits are the operator's, and several that are slow because they share a
link get slower side by side. However long one hangs, at most `MOST` threads are left
behind in it by who asks one thing after the other (threads that ask at the same moment
may each leave one), and the memory they hold is bounded by that: an object that is
read, or the pieces of one that is written. What the store missed meanwhile, the
scrubber brings (docs/adr/0034).
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fedsecure.checkpoint.call import Call, Moved
from fedsecure.checkpoint.silence import Silence
from fedsecure.clock import Clock, SystemClock
from fedsecure.errors import NotFound, StorageError
from fedsecure.stores import Store, TimedStore

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST = 2
"""Threads that may be left behind in one store."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a call may stand still.

    Attributes
    ----------
    linger : float
        Seconds, where others suffice.
    longest : float
        Seconds, where it is needed.
    """

    linger: float = 4.0
    longest: float = 120.0


class Patience:
    """What is known of each store's answers; one object for all threads.

    Parameters
    ----------
    clock : Clock
        See `Silence`.
    bounds : Bounds
    """

    def __init__(self, clock: Clock, bounds: Bounds) -> None:
        self.bounds = bounds
        self._silence = Silence(clock)
        self._waits = SystemClock()  # a real thread is waited for in real seconds
        self._left: dict[str, int] = {}
        self._turn = threading.Lock()

    def stuck(self, name: str) -> bool:
        """Return whether a call into a store was left behind and has not returned."""
        with self._turn:
            return self._left.get(name, 0) > 0

    def rests(self, name: str) -> bool:
        """Return whether a store is stuck, or was silent a moment ago."""
        return self.stuck(name) or self._silence.rests(name)

    def order(self, stores: Sequence[tuple[str, Store]]) -> list[tuple[str, Store]]:
        """Return the stores, those that rest last."""
        return sorted(stores, key=lambda each: self.rests(each[0]))

    def begin(self, name: str, ask: Callable[[Moved], T]) -> Call[T]:
        """Begin a call into a store; one that cannot return is not made."""
        with self._turn:
            left = self._left.get(name, 0)
        if left >= MOST:
            return Call.refused(name, f"{left} calls into it have not returned")
        return Call(name, ask, self._waits).start()

    def in_turn(
        self,
        stores: Sequence[tuple[str, Store]],
        ask: Callable[[Store, Moved], T],
        enough: Callable[[], bool],
        spared: Callable[[str], bool],
    ) -> Generator[Call[T], None, None]:
        """Ask one store after the other; yield each call when it is over or left.

        Parameters
        ----------
        ask : callable
            (store, moved) -> the answer.
        enough : callable
            Whether what was yielded so far suffices.
        spared : callable
            Name of a store that rests -> whether it is not asked at all.
        """

        def calls() -> Iterator[Call[T]]:
            for name, store in self.order(stores):
                if self.rests(name) and spared(name):
                    why = "was silent, and is left alone for a while"
                    yield Call.refused(name, why)
                    continue
                begun = self._silence.now()
                call = self.begin(name, partial(ask, store))
                if isinstance(store, TimedStore):
                    call.wait(threading.TIMEOUT_MAX / 2)
                yield call
                if call.wait(0.0):
                    self._learn(call, begun)

        yield from self.gather(calls(), enough)

    def gather(
        self,
        calls: Iterable[Call[T]],
        enough: Callable[[], bool],
        linger: float | None = None,
    ) -> Generator[Call[T], None, None]:
        """Wait for calls; yield each when it is over, or was left behind.

        Those that stand still are waited for once more at the end, while it is not
        enough. Whoever stops early leaves the others.

        Parameters
        ----------
        linger : float, optional
            In place of `Bounds.linger`.
        """
        linger = self.bounds.linger if linger is None else linger
        late: list[Call[T]] = []
        try:
            for call in calls:
                if call.wait(linger):
                    yield call
                    call.forget()
                else:
                    late.append(call)
            while late:
                if not enough():
                    late[0].wait(self.bounds.longest)
                self._leave(late[0])
                yield late.pop(0)
        finally:
            for call in late:
                self._leave(call)

    def _leave(self, call: Call[T]) -> None:
        name = call.name
        with self._turn:
            self._left[name] = self._left.get(name, 0) + 1
        if call.leave(lambda: self._returned(name)):
            log.warning(
                "store %s does not return: it is left alone until it does", name
            )
        else:
            self._returned(name)

    def _returned(self, name: str) -> None:
        with self._turn:
            self._left[name] -= 1

    def _learn(self, call: Call[T], begun: float) -> None:
        failed = call.failed
        bad = isinstance(failed, StorageError) and not isinstance(failed, NotFound)
        self._silence.learn(call.name, begun, failed=bad)
