"""The pulse of a ServerApp: a counter in a file, and a supervisor that feels it.

A process that hangs has not ended, so its supervisor would wait for ever; and on a
server others lead once its lease ran out, but the hung one would stay in the way of its
own restart. What the supervisor itself slept through is not held against the process.
"""

import contextlib
import os
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.monitor.stillness import Stillness

PULSE = "pulse"
"""Name of the file in an aggregator's state folder."""
_SPACING = 0.5


class Pulse:
    """What a process shows while its campaign goes on.

    Parameters
    ----------
    path : Path
    clock : Clock
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._next = 0.0
        self._beats = 0

    def beat(self) -> None:
        """Beat, if the last beat is half a second old; a full disk is no reason to end.

        Not durable on purpose: a beat of a machine that went down says nothing.
        """
        now = self._clock.now()
        if 0.0 <= self._next - now <= _SPACING:
            return
        self._next = now + _SPACING
        self._beats += 1
        # In place, always as long: emptied first, it might find no room any more.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(descriptor, f"{self._beats:020d}\n".encode(), 0)
            finally:
                os.close(descriptor)


class PulseWatch:
    """How long a pulse has stood still, seen by one supervisor.

    Parameters
    ----------
    path : Path
    limit : float
        Seconds of standing still after which the process hangs.
    clock : Clock
    """

    def __init__(self, path: Path, limit: float, clock: Clock) -> None:
        self._path = path
        self._limit = limit
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forget what was seen: another process begins."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._last = ""
        self._stillness = Stillness(self._limit, self._clock)

    def hangs(self) -> bool:
        """Return whether the pulse stands still; one that never beat does not hang."""
        with contextlib.suppress(OSError):
            seen = self._path.read_text(encoding="ascii")
            if seen and seen != self._last:
                self._last = seen
                self._stillness.moved()
        return self._stillness.too_long() and bool(self._last)
