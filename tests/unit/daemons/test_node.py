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


class Waiting:
    """Half of a round whose letter waits for a release."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.opened = False
        self.answers: list[bytes] = []
        self.waits = threading.Event()

    def patience(self, data: bytes) -> float:
        if data != b"letter" or self.opened:
            return 0.0
        self.waits.set()
        return self.seconds

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        _ = trainer
        self.opened |= data == b"release"
        self.answers.append(data)
        return Outgoing.of(b"opened" if self.opened else b"missing")


def waiting(seconds: float) -> tuple[Waiting, ClientRound, NodeDaemon]:
    half = Waiting(seconds)
    daemon = NodeDaemon(cast("Kit", None), cast("NodeConfig", None))
    return half, cast("ClientRound", half), daemon


def test_a_letter_waits_for_its_release_and_others_are_answered_meanwhile() -> None:
    half, asked, daemon = waiting(60.0)
    stop, said = threading.Event(), list[bytes]()

    def letter() -> None:
        said.append(daemon._answer(asked, b"letter", stop).to_bytes())

    thread = threading.Thread(target=letter)
    thread.start()
    assert half.waits.wait(10)
    daemon._answer(asked, b"other", stop)
    daemon._answer(asked, b"release", stop)
    thread.join(10)
    assert said == [b"opened"]
    assert half.answers == [b"other", b"release", b"letter"]


def test_a_release_that_does_not_come_is_missed_after_a_while() -> None:
    _, asked, daemon = waiting(0.05)
    assert daemon._answer(asked, b"letter", threading.Event()).to_bytes() == b"missing"


def test_a_daemon_that_ends_keeps_no_letter_waiting() -> None:
    half, asked, daemon = waiting(60.0)
    stop, failed = threading.Event(), list[Exception]()

    def letter() -> None:
        try:
            daemon._answer(asked, b"letter", stop)
        except StorageError as ended:
            failed.append(ended)

    thread = threading.Thread(target=letter)
    thread.start()
    assert half.waits.wait(10)
    stop.set()
    with daemon._one_at_a_time:
        daemon._one_at_a_time.notify_all()
    thread.join(10)
    assert "this daemon ends" in str(failed[0])
    assert half.answers == []
