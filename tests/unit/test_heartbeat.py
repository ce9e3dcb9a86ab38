"""A lock with a heartbeat: who is ended, when, and who never."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedsecure import heartbeat
from fedsecure.disk import SystemDisk
from fedsecure.errors import StorageError
from fedsecure.heartbeat import Heartbeat, end_process, started_at
from tests.fakes.clock import FakeClock

TTL = 3.0


@dataclass
class Case:
    """A holder, a watcher on its own clock, and whom the watcher would have ended."""

    holder: Heartbeat
    watcher: Heartbeat
    clock: FakeClock
    ended: list[tuple[int, int]] = field(default_factory=list)

    def watch_for(self, seconds: float, *, every: float = 0.5) -> None:
        for _ in range(round(seconds / every)):
            self.clock.jump(every)
            assert self.watcher.watch(TTL)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    disk, clock = SystemDisk(), FakeClock()
    made = Case(
        Heartbeat(tmp_path, disk, FakeClock()), Heartbeat(tmp_path, disk, clock), clock
    )

    def record(pid: int, started: int) -> bool:
        made.ended.append((pid, started))
        return True

    monkeypatch.setattr(heartbeat, "end_process", record)
    yield made
    made.holder.free()
    made.watcher.free()


def test_holder_that_beats_is_left_alone(case: Case) -> None:
    assert case.holder.take()
    for _ in range(20):
        case.watch_for(1.0)
        case.holder.beat()
    assert case.ended == []


def test_holder_that_stands_still_for_a_ttl_is_ended(case: Case) -> None:
    assert case.holder.take()
    case.watch_for(TTL)
    assert case.ended == []
    case.watch_for(1.0)
    assert case.ended == [(os.getpid(), started_at(os.getpid()))]


def test_holder_that_is_still_there_is_ended_again(case: Case) -> None:
    assert case.holder.take()
    case.watch_for(4 * TTL)
    assert len(case.ended) > 1


def test_a_watchers_clock_that_went_back_hides_no_holder_that_hangs(case: Case) -> None:
    assert case.holder.take()
    case.watch_for(1.0)
    case.clock.jump(-3600.0)
    case.watch_for(TTL + 1.0)
    assert len(case.ended) == 1


def test_watcher_that_was_stopped_itself_ends_nobody(case: Case) -> None:
    # Or the machine slept: one long gap between two looks says nothing.
    assert case.holder.take()
    case.watch_for(1.0)
    case.watch_for(600.0, every=600.0)
    assert case.ended == []
    case.holder.beat()
    case.watch_for(TTL)
    assert case.ended == []


def test_time_of_day_ends_nobody(case: Case) -> None:
    assert case.holder.take()
    case.watch_for(1.0)
    case.clock.jump_wall(86400.0)
    case.watch_for(1.0)
    assert case.ended == []


def test_free_lock_is_not_held(case: Case) -> None:
    assert not case.watcher.watch(TTL)
    assert not case.watcher.held


def test_look_at_a_free_lock_does_not_take_it(case: Case) -> None:
    assert not case.watcher.watch(TTL)
    assert case.holder.take()


def test_holder_that_gave_up_is_named_by_no_heartbeat(
    case: Case, tmp_path: Path
) -> None:
    assert case.holder.take()
    case.holder.free()
    assert not (tmp_path / "heartbeat").exists()


def test_silence_of_one_holder_is_not_held_against_the_next(case: Case) -> None:
    assert case.holder.take()
    case.watch_for(TTL)
    case.holder.free()
    assert not case.watcher.watch(TTL)
    assert case.holder.take()
    case.watch_for(TTL)
    assert case.ended == []


def test_heartbeat_that_is_not_one_ends_nobody(case: Case, tmp_path: Path) -> None:
    assert case.holder.take()
    (tmp_path / "heartbeat").write_bytes(b"12345")
    case.watch_for(4 * TTL)
    assert case.ended == []


def test_lock_without_a_heartbeat_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Heartbeat(tmp_path, SystemDisk(), FakeClock())
    (tmp_path / ".heartbeat").mkdir()
    with pytest.raises(StorageError, match="could not write"):
        one.take()
    assert not one.held


def test_lock_that_cannot_be_asked_is_neither_held_nor_free(tmp_path: Path) -> None:
    (tmp_path / "lease.lock").mkdir()
    with pytest.raises(StorageError):
        Heartbeat(tmp_path, SystemDisk(), FakeClock()).watch(TTL)


def _sleeper() -> int:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def test_process_is_ended_by_number_and_start() -> None:
    child = _sleeper()
    assert end_process(child, started_at(child))
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_process_that_took_over_the_number_is_left_alone() -> None:
    child = _sleeper()
    assert not end_process(child, started_at(child) - 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_own_process_is_never_ended() -> None:
    assert not end_process(os.getpid(), started_at(os.getpid()))


def test_process_that_is_gone_is_no_error() -> None:
    child = _sleeper()
    started = started_at(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert started_at(child) == 0
    assert not end_process(child, started)


def test_number_that_is_none_is_no_error() -> None:
    assert not end_process(-1, 1)
    assert not end_process(0, 1)
