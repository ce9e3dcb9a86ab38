import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure.clock import SystemClock
from fedsecure.flower.driver import RoundDriver
from fedsecure.metadata import Step
from fedsecure.monitor.observer import JsonLines, read_lines
from tests.fakes.federation import Federation


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


def test_lines_are_written_again_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    path.symlink_to(FULL)
    observer = JsonLines(path, "agg-1", SystemClock())
    observer.note("opened", {})
    observer.note("closed", {})
    path.unlink()
    for event in ("released", "published"):
        observer.note(event, {})
    assert [line["event"] for line in read_lines(path)] == ["released", "published"]
    assert caplog.messages[1:] == [f"events are written again: {path}: 2 are missing"]


@pytest.mark.parametrize("torn", ['{"event":"rel', "\0\0\0", "12"])
def test_only_the_line_that_a_power_cut_tore_is_lost(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "events.jsonl"
    JsonLines(path, "agg-1", SystemClock()).note("opened", {})
    with path.open("a") as file:
        file.write(torn)
    JsonLines(path, "agg-1", SystemClock()).note("published", {})
    assert [line["event"] for line in read_lines(path)] == ["opened", "published"]


def test_a_round_is_run_to_its_end_while_events_find_no_room() -> None:
    federation = Federation(rounds=1, private=False)
    whole = federation.leader("agg-1")
    observer = JsonLines(FULL, "agg-1", SystemClock())
    RoundDriver(replace(whole, tools=replace(whole.tools, observer=observer))).run()
    assert Step.PUBLISH in [entry.step for entry in federation.journal()]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    JsonLines(tmp_path / "events.jsonl", "agg-1", SystemClock()).note("opened", {})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event":"rel')
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == [
        "opened"
    ]
