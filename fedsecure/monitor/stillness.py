"""How long something has stood still, in the eyes of one who may look away.

A watcher that was suspended, stopped or starved of its processor saw nothing meanwhile,
and must not hold that time against what it watches.
"""

from fedsecure.clock import Clock

_SHARE = 0.1
"""Of the limit: how much one look may count."""


class Stillness:
    """Seconds since something last moved, looked at by one thread, moved by any.

    Parameters
    ----------
    limit : float
        Seconds that are too many; one look counts for a tenth of them at most.
    clock : Clock
    """

    def __init__(self, limit: float, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._moves = self._seen = 0
        self._when = clock.now()
        self._still = 0.0

    def moved(self) -> None:
        """Say that it moved."""
        self._moves += 1  # no sum: that it changed is all that is read

    def look(self) -> float:
        """Return the seconds it has stood still, as far as they were seen."""
        now, moves = self._clock.now(), self._moves
        passed, self._when = now - self._when, now
        if moves != self._seen:
            self._seen, self._still = moves, 0.0
        else:
            self._still += min(max(passed, 0.0), self.limit * _SHARE)
        return self._still

    def too_long(self) -> bool:
        """Look; return whether it stands still for longer than the limit."""
        return self.look() > self.limit
