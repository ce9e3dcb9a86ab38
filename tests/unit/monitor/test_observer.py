import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from fedsecure.clock import SystemClock
from fedsecure.monitor.observer import JsonLines, read_lines


class _Dawdling(SystemClock):
    """A clock whose reader is overtaken before it can write down what it read."""

    def now(self) -> float:
        read = super().now()
        time.sleep(0)
        return read


def test_lines_of_several_threads_stand_in_the_order_of_their_times(
    tmp_path: Path,
) -> None:
    observer = JsonLines(tmp_path / "events.jsonl", "agg-1", _Dawdling())
    start = threading.Barrier(4)

    def tell() -> None:
        start.wait()
        for _ in range(100):
            observer.note("sent", {})

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [float(str(line["now"])) for line in read_lines(tmp_path / "events.jsonl")]
    assert len(times) == 400
    assert times == sorted(times)


FULL = Path("/dev/full")  # every write to it finds no room


def test_a_full_disk_raises_into_nobodys_round_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[object] = []
    observer = JsonLines(FULL, "agg-1", SystemClock(), seen.append)
    for _ in range(3):
        observer.note("opened", {})
    assert caplog.text.count("No space left on device") == 1
    assert "free space on that disk" in caplog.text
    assert len(seen) == 3


def test_a_line_that_fits_in_part_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    observer = JsonLines(path, "agg-1", SystemClock())
    observer.note("opened", {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        observer.note("lost", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    observer.note("released", {})
    assert [line["event"] for line in read_lines(path)] == ["opened", "released"]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    JsonLines(tmp_path / "events.jsonl", "agg-1", SystemClock()).note("opened", {})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event":"rel')
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == [
        "opened"
    ]
