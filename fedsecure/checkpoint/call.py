"""One question to a store, in a thread of its own: it may never come back.

A call into a mount that is gone does not return, and nothing can end its thread. Here
it is waited for while it shows signs of life, and can be left behind. The thread is a
daemon: it never holds up the end of its process.
"""

import threading
from collections.abc import Callable
from typing import Generic, NoReturn, Self, TypeVar

from fedsecure.clock import Clock, SystemClock
from fedsecure.errors import StorageError

T = TypeVar("T")

Moved = Callable[[], None]
"""Says that a call goes on: a few bytes were read or written."""


def _asked(_: Moved) -> NoReturn:
    raise StorageError("it was asked before")


class Call(Generic[T]):
    """A call that runs until it returns, if it ever does.

    Parameters
    ----------
    name : str
        Of the store, for messages.
    ask : callable
        (moved) -> the answer; it may raise anything.
    clock : Clock, optional
        How long it has stood still.
    """

    def __init__(
        self, name: str, ask: Callable[[Moved], T], clock: Clock | None = None
    ) -> None:
        self.name = name
        self._ask, self._clock = ask, clock or SystemClock()
        self._turn = threading.Condition()
        self._answer: list[T] = []
        self._failed: BaseException | None = None
        self._moved_at: float | None = None
        self._over = self._hopeless = False
        self._told: Callable[[], object] = lambda: None

    @classmethod
    def refused(cls, name: str, why: str) -> Self:
        """Return a call that is over and was never made."""

        def refuse(_: Moved) -> T:
            raise StorageError(why)

        made = cls(name, refuse)
        made._run()
        return made

    def start(self) -> Self:
        """Begin, and return at once."""
        threading.Thread(
            target=self._run, name=f"store {self.name}", daemon=True
        ).start()
        return self

    @property
    def over(self) -> bool:
        """Whether it came back."""
        return self._over

    @property
    def failed(self) -> BaseException | None:
        """What it raised, once it is over."""
        return self._failed

    def wait(self, bound: float) -> bool:
        """Return whether it is over, once it is or stood still for `bound` seconds.

        It stands still from the first wait, or from its last sign of life, on.
        """
        with self._turn:
            if self._moved_at is None:
                self._moved_at = self._clock.now()
            while not self._over and not self._hopeless:
                left = self._moved_at + bound - self._clock.now()
                if left <= 0:
                    break
                self._turn.wait(left)
            return self._over

    def give_up(self) -> None:
        """Wait no longer, whoever waits."""
        with self._turn:
            self._hopeless = True
            self._turn.notify_all()

    def leave(self, told: Callable[[], object]) -> bool:
        """Leave it behind; return whether it still runs. Then `told` at its end."""
        with self._turn:
            if not self._over:
                self._told = told
            return not self._over

    def result(self) -> T:
        """Return the answer, or raise what it raised.

        Raises
        ------
        StorageError
            It has not come back.
        """
        if not self._over:
            raise StorageError("it does not return, and was left behind")
        if self._failed is not None:
            raise self._failed
        return self._answer[0]

    def forget(self) -> None:
        """Let go of the frames a failure went through, here and where it was raised.

        They hold whole objects, and a failure that its call keeps is a cycle: an update
        for each site of a round would stay until the collector comes.
        """
        seen = self._failed
        while seen is not None and seen.__traceback__ is not None:
            seen.__traceback__ = None
            seen = seen.__cause__ or seen.__context__

    def _moved(self) -> None:
        if self._moved_at is not None:  # nobody waits before
            self._moved_at = self._clock.now()

    def _run(self) -> None:
        ask, self._ask = self._ask, _asked  # what it holds is not needed again
        try:
            self._answer.append(ask(self._moved))
        except BaseException as failed:  # noqa: BLE001 - raised again by `result`
            self._failed = failed
        with self._turn:
            self._over = True
            self._turn.notify_all()
            told = self._told
        told()
