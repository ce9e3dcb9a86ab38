"""The worker's end from another thread: final, and told from a death of its own."""

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fedsecure.access.kit import Kit
from fedsecure.config import NodeConfig
from fedsecure.daemons import kept_worker
from fedsecure.daemons.kept_worker import KeptWorker
from fedsecure.errors import StorageError, TrainingFailed
from fedsecure.trainer import TrainingResult, TrainingTask

TASK = cast("TrainingTask", None)


class Process:
    """A worker's process that lives until it is ended."""

    started = 0

    def __init__(self, *_: object) -> None:
        Process.started += 1
        self.gone = threading.Event()

    def ended(self) -> int | None:
        return 0 if self.gone.is_set() else None

    def end(self, grace: float) -> None:
        _ = grace
        self.gone.set()


class Pass:
    """A worker as the daemon hears it: its pass goes on until the process is gone."""

    def __init__(self, worker: KeptWorker) -> None:
        self.worker = worker
        self.trains = threading.Event()

    def run(self, task: TrainingTask) -> TrainingResult:
        _ = task
        self.trains.set()
        assert cast("Process", self.worker._child).gone.wait(30)
        raise TrainingFailed("the worker does not answer")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptWorker:
    kit = cast("Kit", SimpleNamespace(state=tmp_path))
    config = cast("NodeConfig", SimpleNamespace(model_dump=lambda mode: {}))
    made = KeptWorker(kit, config)
    monkeypatch.setattr(Process, "started", 0)
    monkeypatch.setattr(kept_worker, "Child", Process)
    monkeypatch.setattr(kept_worker, "WorkerTrainer", lambda ours, _: _closing(ours))
    made.start()
    return made


def _closing(ours: socket.socket) -> object:
    ours.close()
    return SimpleNamespace()


def test_a_pass_whose_worker_is_ended_is_no_answer_and_ends_at_once(
    worker: KeptWorker,
) -> None:
    going = Pass(worker)
    worker._trainer = going  # type: ignore[assignment]
    said: list[Exception] = []

    def train() -> None:
        try:
            worker.run(TASK)
        except StorageError as ended:
            said.append(ended)

    thread = threading.Thread(target=train)
    thread.start()
    assert going.trains.wait(10)
    worker.end()
    thread.join(10)
    assert "this daemon ends" in str(said[0])


def test_a_worker_that_dies_by_itself_is_a_failed_pass(worker: KeptWorker) -> None:
    going = Pass(worker)
    worker._trainer = going  # type: ignore[assignment]

    def die() -> None:
        assert going.trains.wait(10)
        cast("Process", worker._child).gone.set()

    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(TrainingFailed, match="does not answer"):
        worker.run(TASK)
    thread.join(10)


def test_no_worker_is_started_after_the_end(worker: KeptWorker) -> None:
    worker.end()
    with pytest.raises(StorageError, match="this daemon ends"):
        worker.rows()
    assert Process.started == 1


def test_the_end_twice_is_one_end(worker: KeptWorker) -> None:
    worker.end()
    worker.end()
    assert Process.started == 1
