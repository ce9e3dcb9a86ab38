"""The worker as the node daemon sees it: a `Trainer` that outlives its process."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from fedsecure.access.kit import Kit
from fedsecure.config import NodeConfig
from fedsecure.daemons.frames import MAX_BYTES, pack, read_layout_document, unpack
from fedsecure.daemons.supervisor import Child
from fedsecure.errors import (
    FedsecureError,
    StorageError,
    TrainingFailed,
    VerificationError,
)
from fedsecure.flower import commands
from fedsecure.outgoing import Bytes
from fedsecure.relay import receive, send
from fedsecure.trainer import Trainer, TrainingResult, TrainingTask
from fedsecure.update import JSON, Layout, ModelUpdate, Vector, float_bytes

_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Keep freed memory: 1.3 to 4x for per-example gradients (PRIVACY section 12)."""


class WorkerTrainer:
    """A worker process as a `Trainer`; the node daemon's end of the socket."""

    def __init__(self, channel: socket.socket, config: Mapping[str, JSON]) -> None:
        self._channel = channel
        send(channel, pack(config, b""), MAX_BYTES)
        answer, _ = self._receive()
        self._rows = int(str(answer["rows"]))
        self._users = int(str(answer["users"]))
        self._digest = bytes.fromhex(str(answer["digest"]))

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Return the first model, made in the worker."""
        answer, body = self._ask({"do": "initial", "settings": dict(settings)}, b"")
        return read_layout_document(answer["layout"]), np.frombuffer(body, dtype="<f8")

    def rows(self) -> int:
        """Return the training rows the worker loaded."""
        return self._rows

    def users(self) -> int:
        """Return the persons behind them; 0 where they are not told apart."""
        return self._users

    def digest(self) -> bytes:
        """Return SHA-256 of the rows the worker loaded; it stays at the site."""
        return self._digest

    def run(self, task: TrainingTask) -> TrainingResult:
        """Have the worker evaluate the model and, if asked, train it."""
        question: dict[str, JSON] = {
            "do": "run",
            "run": task.round.run,
            "round": task.round.number,
            "layout": task.layout.document(),
            "settings": dict(task.settings),
            "train": task.train,
        }
        answer, body = self._ask(question, float_bytes(task.model))
        update = None
        if task.train:
            delta = np.frombuffer(body, dtype="<f8")
            update = ModelUpdate(task.layout, delta, int(str(answer["examples"])))
        metrics = answer["metrics"]
        if not isinstance(metrics, dict):
            raise TrainingFailed("the worker's metrics are not a mapping")
        numbers = {k: float(str(v)) for k, v in metrics.items()}
        return TrainingResult(update, numbers, int(str(answer["dp_steps"])))

    def _ask(
        self, question: Mapping[str, JSON], body: Bytes
    ) -> tuple[Mapping[str, JSON], memoryview]:
        try:
            send(self._channel, pack(question, body), MAX_BYTES)
            return self._receive()
        except (OSError, VerificationError) as gone:
            raise TrainingFailed(f"the worker does not answer: {gone}") from gone

    def _receive(self) -> tuple[Mapping[str, JSON], memoryview]:
        answer, body = unpack(receive(self._channel, MAX_BYTES))
        if "failed" in answer:
            raise TrainingFailed(str(answer["failed"]))
        return answer, body


class KeptWorker:
    """The worker as a `Trainer` that survives the worker's death.

    A pass that dies is `TrainingFailed`; the next one finds a new worker. `end` is for
    good, and may come from another thread in the middle of a pass: whoever waits for
    the worker then hears `StorageError`, which is no answer, so it is asked again.
    """

    def __init__(self, kit: Kit, config: NodeConfig) -> None:
        self._kit = kit
        self._config = config
        self._child: Child | None = None
        self._trainer: WorkerTrainer | None = None
        self._starts = threading.Lock()
        self._over = False

    def start(self) -> WorkerTrainer:
        """Return a running worker, starting one if there is none.

        Raises
        ------
        TrainingFailed
            Its end was asked for; none is started any more.
        """
        alive = self._child is not None and self._child.ended() is None
        if self._trainer is not None and alive:
            return self._trainer
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "fedsecure.daemons.worker",
            str(theirs.fileno()),
        ]
        environment = commands.environment(self._kit.state / "worker", _HEAP)
        log_path, descriptors = self._kit.state / "worker.log", [theirs.fileno()]
        with theirs, self._starts:
            if self._over:
                ours.close()
                raise TrainingFailed("the worker was ended")
            self._child = Child("worker", command, environment, log_path, descriptors)
        config: Mapping[str, JSON] = self._config.model_dump(mode="json")
        self._trainer = WorkerTrainer(ours, config)
        return self._trainer

    def end(self) -> None:
        """End the worker for good, in the middle of a pass if need be; idempotent."""
        with self._starts:
            self._over = True
            child = self._child
        if child is not None:
            child.end(grace=1.0)

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Return the first model, made in the worker."""
        with self._until_ended():
            return self._guarded().initial(settings)

    def rows(self) -> int:
        """Return the training rows the worker loaded."""
        with self._until_ended():
            return self._guarded().rows()

    def users(self) -> int:
        """Return the persons behind them; 0 where they are not told apart."""
        with self._until_ended():
            return self._guarded().users()

    def run(self, task: TrainingTask) -> TrainingResult:
        """Have the worker do one pass."""
        with self._until_ended():
            return self._guarded().run(task)

    @contextlib.contextmanager
    def _until_ended(self) -> Iterator[None]:
        """Tell a worker that was ended from one that died: only that one failed."""
        try:
            yield
        except FedsecureError as failed:
            if self._over:
                raise StorageError(
                    "this daemon ends and has ended its worker; aggregators ask again"
                ) from failed
            raise

    def _guarded(self) -> Trainer:
        try:
            return self.start()
        except OSError as bad:
            raise TrainingFailed(f"no worker could be started: {bad}") from bad
