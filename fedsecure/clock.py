"""Time as an argument: the one place where the machine's clocks are read."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the house may know of time."""

    def now(self) -> float:
        """Return seconds that only rise and go on while the machine sleeps."""
        ...

    def wall(self) -> datetime:
        """Return the UTC time of day; for people, never for a decision."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        ...


class SystemClock:
    """The machine's own clocks (CLOCK_BOOTTIME where the system has it)."""

    _source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> float:
        """Return seconds since boot, suspend included."""
        return time.clock_gettime(self._source)

    def wall(self) -> datetime:
        """Return the UTC time of day."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`; zero or less returns at once."""
        if seconds > 0:
            time.sleep(seconds)
