"""What is durable when, and who holds a lock; on the machine's own disk."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsecure.disk import LockHeld, SystemDisk, require_room
from fedsecure.errors import AlreadyExists, NotFound, StorageError, VerificationError
from tests.fakes.disk import PowerLost


@pytest.fixture
def disk() -> SystemDisk:
    return SystemDisk()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths in the order they were synced."""
    order: list[str] = []

    def spy(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            order.append(Path("/proc/self/fd", str(descriptor)).readlink().name)
            real(descriptor)

        return sync

    monkeypatch.setattr(os, "fsync", spy(os.fsync))
    monkeypatch.setattr(os, "fdatasync", spy(os.fdatasync))
    return order


def _fail(_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_what_was_written_is_read(disk: SystemDisk, tmp_path: Path) -> None:
    disk.write_once(tmp_path / "a" / "b", b"data")
    assert disk.read(tmp_path / "a" / "b", 4) == b"data"


def test_missing_file_is_not_found(disk: SystemDisk, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        disk.read(tmp_path / "a", 1)


def test_larger_file_is_refused_by_size(disk: SystemDisk, tmp_path: Path) -> None:
    disk.write_once(tmp_path / "a", b"12345")
    with pytest.raises(VerificationError, match="5 bytes, at most 4"):
        disk.read(tmp_path / "a", 4)


def test_folder_read_as_a_file_is_a_storage_error(
    disk: SystemDisk, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="could not read"):
        disk.read(tmp_path, 1)


def test_second_write_is_refused_and_changes_nothing(
    disk: SystemDisk, tmp_path: Path
) -> None:
    disk.write_once(tmp_path / "a", b"first")
    with pytest.raises(AlreadyExists):
        disk.write_once(tmp_path / "a", b"second")
    assert disk.read(tmp_path / "a", 10) == b"first"


def test_write_leaves_no_temporary_file(disk: SystemDisk, tmp_path: Path) -> None:
    disk.write_once(tmp_path / "a", b"1")
    with pytest.raises(AlreadyExists):
        disk.write_once(tmp_path / "a", b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_write_syncs_bytes_before_the_folder(
    disk: SystemDisk, tmp_path: Path, synced: list[str]
) -> None:
    disk.write_once(tmp_path / "sub" / "a", b"1")
    parent, temporary, folder = synced[-3:]
    assert parent == tmp_path.name
    assert temporary.startswith(".tmp-")
    assert folder == "sub"


def test_failed_sync_of_the_bytes_leaves_no_file(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fdatasync", _fail)
    with pytest.raises(StorageError, match=r"could not write .*Input/output error"):
        disk.write_once(tmp_path / "a", b"1")
    assert not list(tmp_path.iterdir())


def test_failed_sync_of_the_folder_is_no_success(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write_once(tmp_path / "first", b"1")
    monkeypatch.setattr(os, "fsync", _fail)
    with pytest.raises(StorageError):
        disk.write_once(tmp_path / "a", b"1")


CALLS = ("open", "write", "fdatasync", "link", "unlink", "fsync", "close")


def _power(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Lose power before the system call number `step`; return the count of calls."""
    count = 0

    def spy(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count >= step:  # dead stays dead: no clean-up runs either
                raise PowerLost
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, spy(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("step", range(1, 20))
def test_write_is_whole_or_missing_after_any_system_call(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "sub" / "a"
    with monkeypatch.context() as patch:
        calls = _power(patch, step)
        try:
            disk.write_once(path, b"data")
        except PowerLost:
            pass
        else:
            assert calls() < step
    fresh = SystemDisk()
    assert fresh.listdir(tmp_path) in {(), ("sub/a",)}
    with contextlib.suppress(AlreadyExists):
        fresh.write_once(path, b"data")
    assert fresh.read(path, 10) == b"data"


def test_these_are_all_system_calls_of_a_write(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        calls = _power(patch, 1000)
        disk.write_once(tmp_path / "sub" / "a", b"data")
    assert 10 < calls() < 19


def test_repeat_makes_the_name_durable_that_a_dead_writer_left(
    disk: SystemDisk, tmp_path: Path, synced: list[str]
) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(AlreadyExists):
        disk.write_once(tmp_path / "a", b"1")
    assert synced[-1] == tmp_path.name


def test_append_adds_at_the_end(disk: SystemDisk, tmp_path: Path) -> None:
    disk.append(tmp_path / "a", b"1")
    disk.append(tmp_path / "a", b"2")
    assert disk.read(tmp_path / "a", 2) == b"12"


def test_each_append_syncs_the_file_and_the_first_its_folder(
    disk: SystemDisk, tmp_path: Path, synced: list[str]
) -> None:
    disk.append(tmp_path / "log", b"1")
    disk.append(tmp_path / "log", b"2")
    assert synced[-3:] == ["log", tmp_path.name, "log"]


def test_first_append_to_a_file_of_a_dead_process_syncs_the_folder(
    disk: SystemDisk, tmp_path: Path, synced: list[str]
) -> None:
    (tmp_path / "log").write_bytes(b"1")
    disk.append(tmp_path / "log", b"2")
    assert synced[-2:] == ["log", tmp_path.name]


def test_failed_sync_of_an_append_is_no_success(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.append(tmp_path / "log", b"1")
    monkeypatch.setattr(os, "fsync", _fail)
    with pytest.raises(StorageError, match="could not append"):
        disk.append(tmp_path / "log", b"2")


def test_truncate_cuts_and_syncs(
    disk: SystemDisk, tmp_path: Path, synced: list[str]
) -> None:
    disk.append(tmp_path / "log", b"12345")
    del synced[:]
    disk.truncate(tmp_path / "log", 2)
    assert disk.read(tmp_path / "log", 2) == b"12"
    assert synced == ["log"]


def test_delete_syncs_the_folder(
    disk: SystemDisk, tmp_path: Path, synced: list[str]
) -> None:
    disk.write_once(tmp_path / "a", b"1")
    del synced[:]
    disk.delete(tmp_path / "a")
    assert disk.listdir(tmp_path) == ()
    assert synced == [tmp_path.name]


def test_delete_of_a_missing_file_is_no_error(disk: SystemDisk, tmp_path: Path) -> None:
    disk.delete(tmp_path / "no" / "such")
    assert disk.listdir(tmp_path) == ()


def test_list_is_recursive_sorted_and_without_temporary_files(
    disk: SystemDisk, tmp_path: Path
) -> None:
    for name in ("b", "a/c", "a/b"):
        disk.write_once(tmp_path / name, b"1")
    (tmp_path / "a" / ".tmp-1").write_bytes(b"half")
    assert disk.listdir(tmp_path) == ("a/b", "a/c", "b")


def test_list_of_a_missing_folder_is_empty(disk: SystemDisk, tmp_path: Path) -> None:
    assert disk.listdir(tmp_path / "no") == ()


def test_folder_that_cannot_be_listed_is_an_error_and_not_empty(
    disk: SystemDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", _fail)
    with pytest.raises(StorageError, match="could not list"):
        disk.listdir(tmp_path)


def test_held_lock_names_path_and_holder(disk: SystemDisk, tmp_path: Path) -> None:
    lock = disk.lock(tmp_path / "x.lock")
    with pytest.raises(LockHeld, match=rf"x\.lock is locked by process {os.getpid()}"):
        disk.lock(tmp_path / "x.lock")
    lock.release()


def test_released_lock_can_be_taken(disk: SystemDisk, tmp_path: Path) -> None:
    disk.lock(tmp_path / "x.lock").release()
    again = disk.lock(tmp_path / "x.lock")
    assert again.held
    again.release()


def test_lock_that_cannot_be_asked_is_not_held_by_others(
    disk: SystemDisk, tmp_path: Path
) -> None:
    (tmp_path / "x.lock").mkdir()
    with pytest.raises(StorageError) as failed:
        disk.lock(tmp_path / "x.lock")
    assert not isinstance(failed.value, LockHeld)


def test_second_release_does_not_free_a_later_lock(
    disk: SystemDisk, tmp_path: Path
) -> None:
    # The later lock gets the first one's descriptor number.
    first = disk.lock(tmp_path / "x.lock")
    first.release()
    later = disk.lock(tmp_path / "x.lock")
    first.release()
    with pytest.raises(LockHeld):
        disk.lock(tmp_path / "x.lock")
    later.release()


def _in_child(check: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def test_forked_child_does_not_hold_the_lock(disk: SystemDisk, tmp_path: Path) -> None:
    lock = disk.lock(tmp_path / "x.lock")
    assert _in_child(lambda: not lock.held)
    assert lock.held
    lock.release()


def test_lock_is_free_although_a_forked_child_lives_on(
    disk: SystemDisk, tmp_path: Path
) -> None:
    lock = disk.lock(tmp_path / "x.lock")
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(told, b"1")
        signal.pause()
    try:
        os.read(ready, 1)
        lock.release()
        disk.lock(tmp_path / "x.lock").release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


# --- full -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["write_once", "append"])
def test_a_full_disk_is_said_with_path_need_free_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def full(_: int, __: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="No space left on device") as said:
        getattr(SystemDisk(), verb)(tmp_path / "f", b"12345")
    monkeypatch.undo()
    for part in (
        str(tmp_path),
        "5 bytes were to be written",
        "are free",
        "start again",
    ):
        assert part in str(said.value)
    assert [p for p in tmp_path.iterdir() if p.stat().st_size] == []


def test_a_stream_that_finds_no_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = os.write, [0]

    def fills_up(descriptor: int, data: bytes) -> int:
        written[0] += 1
        if written[0] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(StorageError, match="are free there"):
        SystemDisk().write_stream(
            tmp_path, iter([b"1", b"2", b"3"]), lambda: tmp_path / "f"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_room_is_passed(tmp_path: Path) -> None:
    require_room(tmp_path / "not" / "made", 1)


def test_a_folder_without_room_is_named_with_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"No space left on device \(\d+ bytes were"):
        require_room(tmp_path, 1 << 62)
