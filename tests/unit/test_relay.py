"""The relay: what is refused before it is read, who may ask, and how it ends."""

import logging
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import (
    ConfigurationError,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.outgoing import Outgoing
from fedsecure.relay import RelayServer, ask, receive, send

LIMIT = 1 << 16
ME = frozenset({os.getuid()})
Pair = tuple[socket.socket, socket.socket]
Serve = Callable[[Callable[[bytes], bytes | Outgoing]], Path]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        right.settimeout(10)
        yield left, right


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="relay-") as name:  # pytest's own is too long
        yield Path(name)


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    servers = []

    def start(handler: Callable[[bytes], bytes | Outgoing]) -> Path:
        servers.append(RelayServer(folder / "relay.sock", handler, LIMIT, ME))
        servers[-1].start()
        return folder / "relay.sock"

    yield start
    for server in servers:
        server.close()


@given(st.binary(max_size=4096))
def test_what_is_sent_is_received(payload: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        send(left, payload, LIMIT)
        assert receive(right, LIMIT) == payload


def test_frames_keep_their_order(pair: Pair) -> None:
    left, right = pair
    send(left, b"one", LIMIT)
    send(left, b"", LIMIT)
    send(left, b"three", LIMIT)
    assert [receive(right, LIMIT) for _ in range(3)] == [b"one", b"", b"three"]


def test_a_frame_on_the_wire_is_eight_bytes_of_length_and_the_bytes(pair: Pair) -> None:
    left, right = pair
    send(left, b"abc", LIMIT)
    assert right.recv(64) == b"\x03\0\0\0\0\0\0\0abc"


def test_a_frame_larger_than_a_socket_buffer_arrives(pair: Pair) -> None:
    left, right = pair
    payload = os.urandom(3_000_000)
    sender = threading.Thread(target=send, args=(left, payload, len(payload)))
    sender.start()
    assert receive(right, len(payload)) == payload
    sender.join()


def test_a_frame_in_pieces_is_one_frame(pair: Pair) -> None:
    left, right = pair
    send(left, Outgoing.of(b"ab", b"", b"cde"), LIMIT)
    assert receive(right, LIMIT) == b"abcde"


def test_a_piece_is_sent_before_the_next_one_is_read(pair: Pair) -> None:
    left, right = pair
    seen: list[bytes] = []

    def pieces() -> Iterator[bytes]:
        yield b"abc"
        seen.append(right.recv(64))
        yield b"de"

    send(left, Outgoing(5, pieces), LIMIT)
    assert seen == [b"\x05\0\0\0\0\0\0\0abc"]


def test_a_frame_in_pieces_over_the_limit_is_not_begun(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(VerificationError, match="frame of 9 bytes, at most 8"):
        send(left, Outgoing.of(b"12345", b"6789"), 8)
    left.close()
    assert right.recv(1) == b""


@pytest.mark.parametrize("size", [4, 6])
def test_a_frame_whose_pieces_do_not_add_up_is_never_whole(
    pair: Pair, size: int
) -> None:
    left, right = pair
    with pytest.raises(VerificationError, match=f"{size} announced"):
        send(left, Outgoing(size, lambda: (b"ab", b"cde")), LIMIT)
    left.close()
    with pytest.raises(VerificationError, match="bytes early"):
        receive(right, LIMIT)


def test_a_frame_of_exactly_the_limit_passes(pair: Pair) -> None:
    left, right = pair
    send(left, b"12345678", 8)
    assert receive(right, 8) == b"12345678"


def test_a_frame_over_the_limit_is_not_sent(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(VerificationError, match="frame of 9 bytes, at most 8"):
        send(left, b"123456789", 8)
    left.close()
    assert right.recv(1) == b""


def test_an_announced_length_over_the_limit_is_refused_before_it_is_read(
    pair: Pair,
) -> None:
    left, right = pair
    left.sendall(struct.pack("<Q", (1 << 64) - 1) + b"x")
    with pytest.raises(VerificationError, match=r"frame of \d+ bytes, at most 65536"):
        receive(right, LIMIT)
    assert right.recv(1) == b"x"


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 12])
def test_a_frame_that_ends_early_is_refused(pair: Pair, cut: int) -> None:
    left, right = pair
    left.sendall((struct.pack("<Q", 5) + b"abcde")[:cut])
    left.close()
    with pytest.raises(VerificationError, match=r"ends \d+ bytes early"):
        receive(right, LIMIT)


def test_a_question_gets_its_answer(serve: Serve) -> None:
    assert ask(serve(bytes.upper), b"hello", LIMIT, 10) == b"HELLO"


def test_an_answer_is_read_where_it_lies_while_it_is_sent(serve: Serve) -> None:
    path = serve(lambda question: Outgoing(6, lambda: (question, question)))
    assert ask(path, b"abc", LIMIT, 10) == b"abcabc"


def test_an_answer_whose_store_fails_halfway_is_no_answer(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise NotFound("body/1/1: no such object")

    path = serve(lambda _: Outgoing(6, pieces))
    with pytest.raises(StorageError, match="does not answer"):
        ask(path, b"hello", LIMIT, 10)
    assert "body/1/1: no such object" in caplog.text


def test_questions_are_answered_side_by_side(serve: Serve) -> None:
    both_here = threading.Barrier(2, timeout=10)

    def handler(question: bytes) -> bytes:
        both_here.wait()
        return question

    path = serve(handler)
    answers: list[bytes] = []
    asking = [
        threading.Thread(target=lambda q=q: answers.append(ask(path, q, LIMIT, 10)))
        for q in (b"a", b"b")
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(answers) == [b"a", b"b"]


def test_the_socket_is_for_its_owner_alone(serve: Serve) -> None:
    path = serve(bytes.upper)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_it_makes_is_for_its_owner_alone(folder: Path) -> None:
    server = RelayServer(folder / "new" / "relay.sock", bytes.upper, LIMIT, ME)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o700
    server.close()


def test_another_user_gets_no_answer_and_the_handler_is_not_called(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[bytes] = []

    def handler(question: bytes) -> bytes:
        called.append(question)
        return b""

    nobody_here = frozenset({os.getuid() + 1})
    server = RelayServer(folder / "relay.sock", handler, LIMIT, nobody_here)
    server.start()
    with pytest.raises(StorageError, match="does not answer"):
        ask(folder / "relay.sock", b"hello", LIMIT, 10)
    server.close()
    assert called == []
    assert f"user {os.getuid()} may not ask" in caplog.text


def test_a_handler_that_raises_tells_the_log_and_not_the_asker(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(question: bytes) -> bytes:
        raise RuntimeError("inner reason")

    with pytest.raises(StorageError) as heard:
        ask(serve(handler), b"hello", LIMIT, 10)
    assert "inner reason" not in str(heard.value)
    assert "inner reason" in caplog.text


def test_after_a_question_that_failed_the_next_one_is_answered(serve: Serve) -> None:
    def handler(question: bytes) -> bytes:
        return question if question == b"good" else bytes(LIMIT + 1)

    path = serve(handler)
    with pytest.raises(StorageError, match="does not answer"):
        ask(path, b"bad", LIMIT, 10)
    assert ask(path, b"good", LIMIT, 10) == b"good"


def test_an_answer_over_the_askers_limit_is_refused(serve: Serve) -> None:
    path = serve(lambda _: b"123456789")
    with pytest.raises(VerificationError, match="frame of 9 bytes, at most 8"):
        ask(path, b"hello", 8, 10)


def test_nobody_listening_is_a_storage_error_that_names_the_path(folder: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.sock does not answer"):
        ask(folder / "none.sock", b"hello", LIMIT, 10)


def test_a_silent_daemon_is_given_up_after_the_timeout(serve: Serve) -> None:
    release = threading.Event()

    def handler(question: bytes) -> bytes:
        release.wait(10)
        return question

    path = serve(handler)
    with pytest.raises(StorageError, match="timed out"):
        ask(path, b"hello", LIMIT, 0.01)
    release.set()


def test_a_closed_server_takes_no_question_and_leaves_no_socket(folder: Path) -> None:
    path = folder / "relay.sock"
    server = RelayServer(path, bytes.upper, LIMIT, ME)
    server.start()
    server.close()
    assert not path.exists()
    with pytest.raises(StorageError):
        ask(path, b"hello", LIMIT, 10)


def test_close_ends_the_accepting_thread(folder: Path) -> None:
    server = RelayServer(folder / "relay.sock", bytes.upper, LIMIT, ME)
    server.start()
    server.close()
    assert not any(t.name == "relay" for t in threading.enumerate())


def test_a_second_close_leaves_a_successors_socket_alone(folder: Path) -> None:
    path = folder / "relay.sock"
    first = RelayServer(path, bytes.upper, LIMIT, ME)
    first.close()
    second = RelayServer(path, bytes.upper, LIMIT, ME)
    second.start()
    first.close()
    assert ask(path, b"hello", LIMIT, 10) == b"HELLO"
    second.close()


def test_a_question_in_progress_gets_its_answer_after_close(folder: Path) -> None:
    path = folder / "relay.sock"
    heard, go_on = threading.Event(), threading.Event()

    def handler(question: bytes) -> bytes:
        heard.set()
        go_on.wait(10)
        return question

    server = RelayServer(path, handler, LIMIT, ME)
    server.start()
    answers: list[bytes] = []
    asking = threading.Thread(
        target=lambda: answers.append(ask(path, b"late", LIMIT, 10))
    )
    asking.start()
    assert heard.wait(10)
    server.close()
    go_on.set()
    asking.join()
    assert answers == [b"late"]


def test_the_socket_of_a_killed_daemon_is_replaced(folder: Path) -> None:
    path = folder / "relay.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = RelayServer(path, bytes.upper, LIMIT, ME)
    server.start()
    assert ask(path, b"hello", LIMIT, 10) == b"HELLO"
    server.close()


def test_a_file_in_its_place_is_refused_and_kept(folder: Path) -> None:
    path = folder / "relay.sock"
    path.write_bytes(b"a ledger, say")
    with pytest.raises(ConfigurationError, match="no socket at"):
        RelayServer(path, bytes.upper, LIMIT, ME)
    assert path.read_bytes() == b"a ledger, say"


def test_a_path_too_long_for_a_socket_says_what_to_do(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="use a shorter kit folder"):
        RelayServer(folder / ("x" * 100) / "relay.sock", bytes.upper, LIMIT, ME)


class RefusesOnce:
    """A listener that has no file descriptor left, once."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.refused = 0

    def accept(self) -> tuple[socket.socket, object]:
        if not self.refused:
            self.refused += 1
            raise OSError(24, "Too many open files")
        return self._listener.accept()

    def shutdown(self, how: int) -> None:
        self._listener.shutdown(how)

    def close(self) -> None:
        self._listener.close()


def test_too_many_open_files_do_not_make_it_deaf(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = RelayServer(folder / "relay.sock", bytes.upper, LIMIT, ME)
    listener = RefusesOnce(server._listener)
    server._listener = listener  # type: ignore[assignment]
    server.start()
    assert ask(folder / "relay.sock", b"hello", LIMIT, 10) == b"HELLO"
    assert listener.refused == 1
    assert "Too many open files" in caplog.text
    server.close()
