"""How long something stood still, and what its watcher did not see."""

import pytest

from fedsecure.monitor.stillness import Stillness
from tests.fakes.clock import FakeClock

LIMIT = 10.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def still(clock: FakeClock) -> Stillness:
    return Stillness(LIMIT, clock)


def looks(still: Stillness, clock: FakeClock, seconds: float) -> bool:
    """Look four times a second; return what the last look said."""
    found = False
    for _ in range(round(seconds * 4)):
        clock.jump(0.25)
        found = still.too_long()
    return found


def test_stillness_up_to_the_limit_is_not_too_long(
    still: Stillness, clock: FakeClock
) -> None:
    assert not looks(still, clock, LIMIT)
    assert looks(still, clock, 0.25)


def test_one_move_begins_anew(still: Stillness, clock: FakeClock) -> None:
    assert looks(still, clock, LIMIT + 1)
    still.moved()
    assert still.look() == 0.0
    assert not looks(still, clock, LIMIT)


def test_what_the_watcher_slept_through_counts_for_a_tenth(
    still: Stillness, clock: FakeClock
) -> None:
    clock.jump(3600.0)
    assert still.look() == LIMIT / 10


def test_clock_that_goes_back_takes_nothing_away(
    still: Stillness, clock: FakeClock
) -> None:
    looks(still, clock, LIMIT / 2)
    clock.jump(-3600.0)
    assert still.look() == LIMIT / 2
