"""Who hangs, who only looked away, and who never beat."""

from pathlib import Path

import pytest

from fedsecure.monitor.pulse import Pulse, PulseWatch
from tests.fakes.clock import FakeClock

LIMIT = 10.0


class Case:
    """A process and its supervisor, on one clock."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.watch = PulseWatch(path, LIMIT, self.clock)
        self.pulse = Pulse(path, self.clock)

    def look_for(self, seconds: float, *, beating: bool, every: float = 0.25) -> bool:
        """Return whether it hung at any look."""
        hung = False
        for _ in range(round(seconds / every)):
            self.clock.jump(every)
            if beating:
                self.pulse.beat()
            hung = self.watch.hangs() or hung
        return hung


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path / "pulse")


def test_process_that_beats_does_not_hang(case: Case) -> None:
    assert not case.look_for(5 * LIMIT, beating=True)


def test_process_that_stands_still_beyond_the_limit_hangs(case: Case) -> None:
    case.look_for(1.0, beating=True)
    assert not case.look_for(LIMIT - 0.5, beating=False)
    assert case.look_for(1.0, beating=False)


def test_process_that_never_beat_does_not_hang(case: Case) -> None:
    assert not case.look_for(5 * LIMIT, beating=False)


def test_what_the_supervisor_slept_through_does_not_count(case: Case) -> None:
    case.look_for(1.0, beating=True)
    case.clock.jump(3600.0)
    assert not case.watch.hangs()
    assert not case.look_for(LIMIT / 2, beating=True)


def test_clock_that_goes_back_counts_nothing(case: Case) -> None:
    case.look_for(1.0, beating=True)
    case.clock.jump(-3600.0)
    assert not case.look_for(LIMIT - 1.0, beating=False)
    assert case.look_for(2.0, beating=False)


def test_process_beats_on_after_its_clock_went_back(case: Case) -> None:
    case.look_for(1.0, beating=True)
    case.clock.jump(-3600.0)
    assert not case.look_for(2 * LIMIT, beating=True)


def test_next_process_is_not_held_to_the_last_one_s_pulse(case: Case) -> None:
    case.look_for(1.0, beating=True)
    case.look_for(LIMIT + 1.0, beating=False)
    case.watch.begin()
    assert not case.look_for(5 * LIMIT, beating=False)


def test_pulse_is_written_twice_a_second_at_most(case: Case, tmp_path: Path) -> None:
    for _ in range(100):
        case.clock.jump(0.02)
        case.pulse.beat()
    assert int((tmp_path / "pulse").read_text()) <= 5


def test_a_full_disk_ends_no_process(tmp_path: Path) -> None:
    Pulse(tmp_path / "nowhere" / "pulse", FakeClock()).beat()


def test_a_beat_needs_no_more_room_than_the_one_before(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "pulse"
    pulse = Pulse(path, clock)
    sizes = set()
    for _ in range(12):
        clock.jump(1.0)
        pulse.beat()
        sizes.add((path.stat().st_size, path.stat().st_ino))
    assert len(sizes) == 1
