"""Room for answers in memory: taken before a pull, given back when the answer is done.

A pull blocks for as long as a site's upload does, for minutes if that stalls (FLOWER.md
section 6, rule 2), and nobody can tell beforehand. So a pull that blocks keeps its hand
only while others have one to take.
"""

import threading

from fedsecure.clock import Clock


class Hands:
    """How many answers may lie in memory at a time, whoever they are of.

    At most `count` pulls and answers hold a hand. Where none came free for `patience`
    seconds, the pull that blocks longest loses its hand to the next in line, and its
    answer counts from when it is there, even beyond `count`. So with blocked uploads
    the bound is `count` and one more for each `patience` seconds in which nothing
    moved, never more than there are sites; and nobody begins a pull until as many
    answers are done with as are there too many.

    Parameters
    ----------
    count : int
    patience : float
        Seconds.
    clock : Clock
    """

    def __init__(self, count: int, patience: float, clock: Clock) -> None:
        self._free = count
        self._patience = patience
        self._clock = clock
        self._pulls: dict[str, None] = {}  # oldest first
        self._moved = clock.now()
        self._changed = threading.Condition()

    def take(self, who: str, timeout: float) -> bool:
        """Take a hand for a pull that begins; False if none is free in `timeout` s."""
        with self._changed:
            if self._free <= 0:
                self._changed.wait(timeout)
            if self._free <= 0:
                self._reach_past()
            if self._free <= 0:
                return False
            self._free -= 1
            self._pulls[who] = None
            self._moved = self._clock.now()
            return True

    def drop(self, who: str) -> None:
        """Say that the pull of `who` ended without an answer."""
        with self._changed:
            if who in self._pulls:
                del self._pulls[who]
                self._open()

    def fill(self, who: str) -> None:
        """Say that the pull of `who` brought an answer: it is held until `give`."""
        with self._changed:
            if who in self._pulls:
                del self._pulls[who]
            else:  # others went past it, and yet the answer is here
                self._free -= 1

    def give(self) -> None:
        """Say that an answer is held no longer."""
        with self._changed:
            self._open()

    def _open(self) -> None:
        self._free += 1
        self._moved = self._clock.now()
        self._changed.notify()

    def _reach_past(self) -> None:
        """Open another hand if nothing moved for long and a pull is what blocks."""
        now = self._clock.now()
        if self._pulls and not 0 <= now - self._moved < self._patience:
            del self._pulls[next(iter(self._pulls))]
            self._free += 1
            self._moved = now
