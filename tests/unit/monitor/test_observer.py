import threading
import time
from pathlib import Path

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


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    JsonLines(tmp_path / "events.jsonl", "agg-1", SystemClock()).note("opened", {})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event":"rel')
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == [
        "opened"
    ]
