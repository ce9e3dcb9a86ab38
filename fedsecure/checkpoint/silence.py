"""Stores that kept a writer waiting in vain: asked last, or not at all for a while.

A lost host's store answers nothing until the last attempt has timed out. Paid at each
write, that is most of a round; paid once in a while, it finds the store again.
What it missed meanwhile, the scrubber brings.
"""

import threading

from fedsecure.clock import Clock

SLOW = 1.0
"""Seconds a store may take to fail before it counts as silent; what fails at once
costs nobody anything and is asked again each time."""
REST = 30.0
"""Seconds in which a silent store is needed by nobody if others suffice."""


class Silence:
    """Which stores are silent; one object for all threads.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._turn = threading.Lock()

    def now(self) -> float:
        """Return the time an attempt begins."""
        return self._clock.now()

    def learn(self, name: str, begun: float, *, failed: bool) -> None:
        """Note how an attempt ended that began at `begun`."""
        now = self._clock.now()
        with self._turn:
            if failed and now - begun >= SLOW:
                self._until[name] = now + REST
            elif not failed:
                self._until.pop(name, None)

    def rests(self, name: str) -> bool:
        """Return whether a store was silent a moment ago."""
        with self._turn:
            return self._clock.now() < self._until.get(name, 0.0)
