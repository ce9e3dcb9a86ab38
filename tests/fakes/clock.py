"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """Seconds since `START`, of both clocks; `sleep` moves them at once."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._wall = START

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return self._wall

    def sleep(self, seconds: float) -> None:
        self.jump(max(seconds, 0.0))

    def jump(self, seconds: float) -> None:
        """Move both clocks on."""
        self._now += seconds
        self._wall += timedelta(seconds=seconds)

    def jump_wall(self, seconds: float) -> None:
        """Move the time of day alone, as an operator or NTP does; back too."""
        self._wall += timedelta(seconds=seconds)
