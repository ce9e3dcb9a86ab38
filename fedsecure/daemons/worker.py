"""The site's training process: rows, GPU and training code; no key and no network.

Started by the node daemon with one socket, its only way to the world. It imports torch
once, keeps data and model warm, and answers three questions: the first model, the
number of rows, one pass. What it sends back is an update in plain, for the node daemon
to check, clip, encrypt and sign; what the site enforces is out of its reach.
"""

import ctypes
import logging
import os
import resource
import socket
import sys
from collections.abc import Mapping

import numpy as np

from fedsecure.daemons.frames import (
    MAX_BYTES,
    pack,
    read_layout_document,
    unpack,
)
from fedsecure.errors import FedsecureError, TrainingFailed, VerificationError
from fedsecure.learning.datasets import SiteData, load_site
from fedsecure.learning.training import LocalTrainer
from fedsecure.outgoing import Outgoing
from fedsecure.relay import receive, send
from fedsecure.trainer import JSON, Trainer, TrainingTask
from fedsecure.update import RoundId, float_bytes

log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38


def serve(channel: socket.socket) -> None:
    """Answer until the node daemon closes the socket."""
    config, _ = unpack(receive(channel, MAX_BYTES))
    try:
        data = _data(config)
        trainer = LocalTrainer(
            data,
            device=str(config["device"]),
            index=int(str(config["index"])),
            objects=[str(name) for name in _list(config["objects"])],
        )
        first: dict[str, JSON] = {
            "rows": trainer.rows(),
            "users": trainer.users(),
            "digest": data.digest().hex(),
        }
    except FedsecureError as bad:
        send(channel, pack({"failed": str(bad)}, b""), MAX_BYTES)
        return
    send(channel, pack(first, b""), MAX_BYTES)
    while True:
        try:
            question, body = unpack(receive(channel, MAX_BYTES))
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


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def _answer(
    trainer: Trainer, question: Mapping[str, JSON], body: memoryview
) -> Outgoing:
    try:
        return _do(trainer, question, body)
    except Exception as bad:
        # The edge to the user's training code: it may raise anything.
        log.exception("training failed")
        return pack({"failed": f"{type(bad).__name__}: {bad}"}, b"")


def _do(trainer: Trainer, question: Mapping[str, JSON], body: memoryview) -> Outgoing:
    settings = question["settings"]
    if not isinstance(settings, dict):
        raise TrainingFailed("settings are not a mapping")
    if question["do"] == "initial":
        layout, model = trainer.initial(settings)
        return pack({"layout": layout.document()}, float_bytes(model))
    task = TrainingTask(
        RoundId(str(question["run"]), int(str(question["round"]))),
        read_layout_document(question["layout"]),
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
    delta = b"" if result.update is None else float_bytes(result.update.delta)
    return pack(answer, delta)


if __name__ == "__main__":
    main()
