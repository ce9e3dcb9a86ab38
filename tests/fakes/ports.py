"""Ports of loopback that a test names before its server listens at them."""

import itertools
import secrets
import socket

# Below what the system gives to those who ask for any port (32768 and above), and no
# port twice: nobody takes one between its choice and its use. What lies 10000 higher
# is free too, for servers that listen there as well.
_FIRST, _SPAN = 12_000, 10_000
_turns = itertools.count(secrets.randbelow(_SPAN))


def free_port() -> int:
    """Return a port that nobody listens at, and that this process did not return yet.

    Raises
    ------
    OSError
        Every port of the range is taken.
    """
    for turn in itertools.islice(_turns, _SPAN):
        port = _FIRST + turn % _SPAN
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no port of {_FIRST} to {_FIRST + _SPAN - 1} is free on 127.0.0.1")
