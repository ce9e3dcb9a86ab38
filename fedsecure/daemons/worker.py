"""The site's training process: rows, GPU and training code; no key and no network.

Started by the node daemon with one socket, its only way to the world. It imports torch
once, keeps data and model warm, and answers three questions: the first model, the
number of rows, one pass. What it sends back is an update in plain, for the node daemon
to check, clip, encrypt and sign; what the site enforces is out of its reach.
"""

import ctypes
import json
import logging
import os
import resource
import socket
import sys
from collections.abc import Mapping

import numpy as np

from fedsecure.errors import FedsecureError, TrainingFailed, VerificationError
from fedsecure.learning.datasets import SiteData, load_site
from fedsecure.learning.training import LocalTrainer
from fedsecure.relay import receive, send
from fedsecure.shelf import read_layout
from fedsecure.trainer import JSON, Trainer, TrainingResult, TrainingTask
from fedsecure.update import Layout, ModelUpdate, RoundId, Vector

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 30
_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38


class WorkerTrainer:
    """A worker process as a `Trainer`; the node daemon's end of the socket."""

    def __init__(self, channel: socket.socket, config: Mapping[str, JSON]) -> None:
        self._channel = channel
        send(channel, _pack(config, b""), MAX_BYTES)
        answer, _ = self._receive()
        self._rows = int(str(answer["rows"]))
        self._digest = bytes.fromhex(str(answer["digest"]))

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Return the first model, made in the worker."""
        answer, body = self._ask({"do": "initial", "settings": dict(settings)}, b"")
        return _layout(answer["layout"]), np.frombuffer(body, dtype="<f8")

    def rows(self) -> int:
        """Return the training rows the worker loaded."""
        return self._rows

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
        answer, body = self._ask(question, task.model.astype("<f8").tobytes())
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
        self, question: Mapping[str, JSON], body: bytes
    ) -> tuple[Mapping[str, JSON], bytes]:
        try:
            send(self._channel, _pack(question, body), MAX_BYTES)
            return self._receive()
        except (OSError, VerificationError) as gone:
            raise TrainingFailed(f"the worker does not answer: {gone}") from gone

    def _receive(self) -> tuple[Mapping[str, JSON], bytes]:
        answer, body = _unpack(receive(self._channel, MAX_BYTES))
        if "failed" in answer:
            raise TrainingFailed(str(answer["failed"]))
        return answer, body


def serve(channel: socket.socket) -> None:
    """Answer until the node daemon closes the socket."""
    config, _ = _unpack(receive(channel, MAX_BYTES))
    try:
        data = _data(config)
        trainer = LocalTrainer(
            data, device=str(config["device"]), index=int(str(config["index"]))
        )
        first: dict[str, JSON] = {
            "rows": trainer.rows(),
            "digest": data.digest().hex(),
        }
    except FedsecureError as bad:
        send(channel, _pack({"failed": str(bad)}, b""), MAX_BYTES)
        return
    send(channel, _pack(first, b""), MAX_BYTES)
    while True:
        try:
            question, body = _unpack(receive(channel, MAX_BYTES))
        except (VerificationError, OSError):
            return  # the daemon is gone; so are we
        send(channel, _answer(trainer, question, body), MAX_BYTES)


def confine() -> None:
    """Give up what training needs not: network, new privileges, core dumps.

    Each is done where the system allows it; what it does not is said in the log.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) != 0:
        log.warning(
            "worker keeps the network: %s; run the node as root, or set "
            "PrivateNetwork=yes in its unit",
            os.strerror(ctypes.get_errno()),
        )


def main() -> None:
    """Run the worker on the socket whose descriptor is the first argument."""
    logging.basicConfig(level=logging.INFO)
    channel = socket.socket(fileno=int(sys.argv[1]))
    confine()
    serve(channel)


def _data(config: Mapping[str, JSON]) -> SiteData:
    data = config["data"]
    if not isinstance(data, dict):
        raise TrainingFailed("the node's data section is not a mapping")
    return load_site(data, int(str(config["index"])), int(str(config["sites"])))


def _answer(trainer: Trainer, question: Mapping[str, JSON], body: bytes) -> bytes:
    try:
        return _do(trainer, question, body)
    except Exception as bad:
        # The edge to the user's training code: it may raise anything.
        log.exception("training failed")
        return _pack({"failed": f"{type(bad).__name__}: {bad}"}, b"")


def _do(trainer: Trainer, question: Mapping[str, JSON], body: bytes) -> bytes:
    settings = question["settings"]
    if not isinstance(settings, dict):
        raise TrainingFailed("settings are not a mapping")
    if question["do"] == "initial":
        layout, model = trainer.initial(settings)
        return _pack({"layout": layout.document()}, model.astype("<f8").tobytes())
    task = TrainingTask(
        RoundId(str(question["run"]), int(str(question["round"]))),
        _layout(question["layout"]),
        np.frombuffer(body, dtype="<f8"),
        settings,
        train=question["train"] is True,
    )
    result = trainer.run(task)
    answer: dict[str, JSON] = {
        "metrics": dict(result.metrics),
        "dp_steps": result.dp_steps,
        "examples": 0 if result.update is None else result.update.num_examples,
    }
    delta = (
        b"" if result.update is None else result.update.delta.astype("<f8").tobytes()
    )
    return _pack(answer, delta)


def _layout(document: JSON) -> Layout:
    return read_layout(json.dumps(document).encode())


def _pack(head: Mapping[str, JSON], body: bytes) -> bytes:
    text = json.dumps(dict(head)).encode()
    return len(text).to_bytes(4, "little") + text + body


def _unpack(data: bytes) -> tuple[Mapping[str, JSON], bytes]:
    length = int.from_bytes(data[:4], "little")
    if length > len(data) - 4:
        raise VerificationError("worker frame is cut short")
    head = json.loads(data[4 : 4 + length])
    if not isinstance(head, dict):
        raise VerificationError("worker frame has no head")
    return head, data[4 + length :]


if __name__ == "__main__":
    main()
