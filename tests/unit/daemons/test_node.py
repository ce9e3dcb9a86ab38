"""A site's daemon ends when its disk fails: nothing is retried in place."""

import threading
import time
from typing import cast

import pytest

from fedsecure.access.kit import Kit
from fedsecure.client_round import ClientRound
from fedsecure.config import NodeConfig
from fedsecure.daemons import node
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


# --- told to end while a pass trains --------------------------------------------------


class Training:
    """Half of a round, and the worker whose pass it waits for."""

    def __init__(self) -> None:
        self.trains, self.killed = threading.Event(), threading.Event()

    def patience(self, data: bytes) -> float:
        _ = data
        return 0.0

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        _ = data, trainer
        self.trains.set()
        self.killed.wait(30)
        raise StorageError("this daemon ends and has ended its worker")

    def end(self) -> None:
        self.killed.set()


def in_a_pass(half: Training) -> tuple[NodeDaemon, threading.Event, threading.Thread]:
    daemon = NodeDaemon(cast("Kit", None), cast("NodeConfig", None))
    stop = threading.Event()

    def ask() -> None:
        with pytest.raises(StorageError, match="this daemon ends"):
            daemon._answer(cast("ClientRound", half), b"train", stop)

    thread = threading.Thread(target=ask)
    thread.start()
    assert half.trains.wait(10)
    return daemon, stop, thread


def test_a_pass_is_ended_before_the_lock_it_holds_is_asked_for() -> None:
    half = Training()
    daemon, stop, thread = in_a_pass(half)
    daemon._worker = half  # type: ignore[assignment]
    stop.set()
    began = time.monotonic()
    daemon._end_pass()
    thread.join(10)
    assert time.monotonic() - began < 5  # the pass would have taken 30
    assert daemon._failure is None


def test_an_answer_that_is_not_done_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node, "_LAST_ANSWER", 0.01)
    half = Training()
    daemon, stop, thread = in_a_pass(half)
    daemon._worker = Training()  # type: ignore[assignment]
    stop.set()
    daemon._end_pass()
    assert "took over 0.01 s to be kept" in caplog.text
    half.end()
    thread.join(10)
