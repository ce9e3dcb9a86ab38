"""The machine's clocks, and the rule that only a rising one decides."""

import time
from datetime import UTC

import pytest

from fedsecure.clock import Clock, SystemClock
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
def test_now_never_falls_and_sleep_moves_it(clock: Clock) -> None:
    before = clock.now()
    clock.sleep(0.01)
    assert clock.now() >= before + 0.01


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_sleep_of_nothing_returns_at_once(clock: Clock, seconds: float) -> None:
    before = clock.now()
    clock.sleep(seconds)
    assert 0.0 <= clock.now() - before < 1.0


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
def test_wall_is_in_utc(clock: Clock) -> None:
    assert clock.wall().tzinfo is UTC


def test_now_counts_the_time_a_machine_slept() -> None:
    # CLOCK_BOOTTIME, and not CLOCK_MONOTONIC, goes on in suspend (clock_gettime(2)).
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert boot <= SystemClock().now() <= boot + 5.0


def test_jump_of_the_time_of_day_does_not_move_now() -> None:
    clock = FakeClock()
    now, wall = clock.now(), clock.wall()
    clock.jump_wall(-3600.0)
    assert clock.now() == now
    assert (wall - clock.wall()).total_seconds() == 3600.0
