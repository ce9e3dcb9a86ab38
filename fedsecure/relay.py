"""Framed messages over a Unix socket: how a site's relay reaches its node daemon.

Eight bytes of length, then the bytes; the length is checked before anything is read. The
socket has mode 0600 and the kernel says who is at the other end.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from fedsecure.errors import ConfigurationError, StorageError, VerificationError

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<Q")
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_PATH_BYTES = 107  # sun_path of unix(7), less its terminating zero


def send(channel: socket.socket, payload: bytes, limit: int) -> None:
    """Send one frame.

    Raises
    ------
    VerificationError
        The payload is larger than `limit` bytes.
    """
    if len(payload) > limit:
        raise VerificationError(f"frame of {len(payload)} bytes, at most {limit}")
    channel.sendall(_LENGTH.pack(len(payload)))
    channel.sendall(payload)


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
    return bytes(_exactly(channel, length))


def ask(path: Path, payload: bytes, limit: int, timeout: float | None = None) -> bytes:
    """Send one frame to the socket at `path` and return the answer.

    Parameters
    ----------
    timeout : float, optional
        Seconds without a byte after which to give up; None waits for the training.

    Raises
    ------
    StorageError
        Nobody listens there, or it went away.
    """
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(timeout)
            channel.connect(str(path))
            send(channel, payload, limit)
            return receive(channel, limit)
    except OSError as gone:
        raise StorageError(f"node daemon at {path} does not answer: {gone}") from gone


class RelayServer:
    """Answers frames at a socket until closed; one thread a connection.

    Parameters
    ----------
    path : Path
        The socket; made with mode 0600 in a folder of mode 0700.
    handler : callable
        Frame -> answer.
    limit : int
        Largest frame, both ways; bytes.
    allowed : frozenset of int
        User ids that may ask.
    """

    def __init__(
        self,
        path: Path,
        handler: Callable[[bytes], bytes],
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
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return  # closed
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
            except (OSError, VerificationError) as gone:
                log.warning("relay: a question was not answered: %s", gone)


def _exactly(channel: socket.socket, length: int) -> bytearray:
    out = bytearray(length)
    view = memoryview(out)
    while view:
        got = channel.recv_into(view)
        if not got:
            raise VerificationError(f"frame ends {len(view)} bytes early")
        view = view[got:]
    return out
