"""A site's daemon ends when its disk fails: nothing is retried in place."""

import threading
from typing import cast

import pytest

from fedsecure.access.kit import Kit
from fedsecure.client_round import ClientRound
from fedsecure.config import NodeConfig
from fedsecure.daemons.node import NodeDaemon
from fedsecure.errors import StorageError
from fedsecure.outgoing import Outgoing
from fedsecure.trainer import Trainer


class Half:
    """Answers until its disk fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.disk_fails = False

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        _ = trainer
        self.asked += 1
        if self.disk_fails:
            raise StorageError("could not append to ledger.jsonl: Input/output error")
        return Outgoing.of(data)


def test_failed_disk_ends_the_daemon_and_nothing_is_asked_again() -> None:
    daemon = NodeDaemon(cast("Kit", None), cast("NodeConfig", None))
    half, stop = Half(), threading.Event()
    asked = cast("ClientRound", half)
    assert daemon._answered(asked, b"a", stop).to_bytes() == b"a"
    assert not stop.is_set()
    half.disk_fails = True
    with pytest.raises(StorageError, match="Input/output error"):
        daemon._answered(asked, b"b", stop)
    assert stop.is_set()
    half.disk_fails = False
    with pytest.raises(StorageError, match="Input/output error"):
        daemon._answered(asked, b"b", stop)
    assert half.asked == 2
