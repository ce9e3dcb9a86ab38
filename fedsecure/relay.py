"""Framed messages over a Unix socket: how a site's relay reaches its node daemon.

Eight bytes of length, then the bytes; the length is checked before anything is read,
and memory grows with what came, not with what was announced. What goes out is read from
where it lies piece by piece. The socket has mode 0600, and the kernel says who is at
the other end.
"""

import contextlib
import io
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from fedsecure.errors import (
    ConfigurationError,
    FedsecureError,
    StorageError,
    VerificationError,
)
from fedsecure.outgoing import Bytes, Outgoing

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<Q")
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_PATH_BYTES = 107  # sun_path of unix(7), less its terminating zero
_PIECE = 1 << 20
_REST = 0.1


class _EndedEarly(VerificationError):
    """The other end went away within a frame, or before it."""


def send(channel: socket.socket, payload: Bytes | Outgoing, limit: int) -> None:
    """Send one frame, piece by piece if it comes in pieces.

    Raises
    ------
    VerificationError
        The payload is larger than `limit` bytes, or its pieces do not add up: the frame
        then ends early, and the channel is good for nothing but to be closed.
    """
    if len(payload) > limit:
        raise VerificationError(f"frame of {len(payload)} bytes, at most {limit}")
    channel.sendall(_LENGTH.pack(len(payload)))
    pieces = payload.pieces() if isinstance(payload, Outgoing) else (payload,)
    for piece in pieces:
        channel.sendall(piece)


def receive(channel: socket.socket, limit: int) -> bytes:
    """Return the next frame.

    Raises
    ------
    VerificationError
        It announces more than `limit` bytes, or ends early.
    """
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    if length > limit:
        raise VerificationError(f"frame of {length} bytes, at most {limit}")
    return _exactly(channel, length)


def ask(path: Path, payload: bytes, limit: int, timeout: float | None = None) -> bytes:
    """Send one frame to the socket at `path` and return the answer.

    Parameters
    ----------
    timeout : float, optional
        Seconds without a byte after which to give up; None waits for the training.

    Raises
    ------
    StorageError
        Nobody listens there, it went away, or gave no answer.
    VerificationError
        Question or answer is larger than `limit` bytes.
    """
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(timeout)
            channel.connect(str(path))
            send(channel, payload, limit)
            return receive(channel, limit)
    except (OSError, _EndedEarly) as gone:
        raise StorageError(f"node daemon at {path} does not answer: {gone}") from gone


class RelayServer:
    """Answers frames at a socket until closed; one thread a connection.

    Parameters
    ----------
    path : Path
        The socket; made with mode 0600 in a folder of mode 0700.
    handler : callable
        Frame -> answer; an `Outgoing` is read while it is sent.
    limit : int
        Largest frame, both ways; bytes.
    allowed : frozenset of int
        User ids that may ask.

    Raises
    ------
    ConfigurationError
        The path is too long for a socket, or something else lies there.
    """

    def __init__(
        self,
        path: Path,
        handler: Callable[[bytes], bytes | Outgoing],
        limit: int,
        allowed: frozenset[int],
    ) -> None:
        if len(os.fsencode(path)) > _PATH_BYTES:
            raise ConfigurationError(
                f"socket path {path} is longer than {_PATH_BYTES} bytes: use a shorter "
                "kit folder"
            )
        self._path = path
        self._handler = handler
        self._limit = limit
        self._allowed = allowed
        self._closing = threading.Event()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_socket():  # of a daemon that was killed
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(str(path))
            path.chmod(0o600)  # before anybody can connect: that needs `listen`
            self._listener.listen(16)
        except OSError as bad:
            self._listener.close()
            raise ConfigurationError(f"no socket at {path}: {bad}") from bad
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Take no more questions and remove the socket; idempotent.

        A question that is being answered still gets its answer.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError as bad:
                if self._closing.is_set():
                    return
                # Too many open files, say: a daemon that goes deaf helps nobody.
                log.warning("relay: no connection taken: %s", bad)
                self._closing.wait(_REST)
                continue
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel:
            data = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            _, uid, _ = _PEER.unpack(data)
            if uid not in self._allowed:
                log.warning("relay: user %d may not ask", uid)
                return
            try:
                send(channel, self._handler(receive(channel, self._limit)), self._limit)
            except (OSError, FedsecureError) as gone:
                log.warning("relay: a question was not answered: %s", gone)
            except Exception:
                # The top of a connection: the asker hears nothing but that it failed.
                log.exception("relay: a question was not answered")


def _exactly(channel: socket.socket, length: int) -> bytes:
    out, left = io.BytesIO(), length  # unlike a bytearray, it ends as bytes uncopied
    while left:
        piece = channel.recv(min(left, _PIECE))
        if not piece:
            raise _EndedEarly(f"frame ends {left} bytes early")
        left -= out.write(piece)
    return out.getvalue()
