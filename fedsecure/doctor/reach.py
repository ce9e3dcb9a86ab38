"""What other machines say, gathered and not judged: names, ports, engine, clock."""

import ctypes
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fedsecure.assembly.places import open_engine
from fedsecure.config import AggregatorConfig
from fedsecure.doctor import probes
from fedsecure.errors import FedsecureError

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Server:
    """A server this aggregator leans on, and whether a connection to it is made.

    Attributes
    ----------
    kind : str
        "engine" or "store".
    host : str
    port : int
    problem : str
        Why none is made; "" if one is.
    """

    kind: str
    host: str
    port: int
    problem: str


def servers(config: AggregatorConfig) -> list[Server]:
    """Dial etcd's members and the buckets' servers; PostgreSQL is asked as a whole."""
    named = [("engine", url) for url in config.engine.endpoints]
    named += [("store", s.url) for s in config.stores if not isinstance(s, str)]
    return [_dialled(kind, url) for kind, url in named]


def engine_problem(config: AggregatorConfig) -> str:
    """Ask the engine who leads; return why it does not say, "" if it does."""
    try:
        open_engine(config, look=True).leases.read()
    except FedsecureError as bad:
        return str(bad)
    return ""


def addresses(host: str) -> list[str]:
    """Return what a name resolves to on this machine; empty if to nothing."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_kept_by_ntp(state: Callable[[], int] | None = None) -> bool | None:
    """Return whether the kernel says its clock is synchronised; None if it cannot say.

    Parameters
    ----------
    state : callable, optional
        Returns what adjtimex(2) does; for tests.
    """
    try:
        found = (_adjtimex if state is None else state)()
    except (OSError, AttributeError):
        return None
    return None if found < 0 else found != _TIME_ERROR


def _adjtimex() -> int:
    # struct timex is 208 bytes on Linux; modes=0 asks and sets nothing.
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))


def _dialled(kind: str, url: str) -> Server:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
    try:
        socket.create_connection((host, port), probes.DIAL_SECONDS).close()
    except OSError as bad:
        return Server(kind, host, port, bad.strerror or str(bad))
    return Server(kind, host, port, "")
