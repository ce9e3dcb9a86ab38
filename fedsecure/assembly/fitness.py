"""Which stores must prove themselves at a start: all that can be reached.

A bucket whose host is lost takes no connection. It must not keep the aggregator that is
left from starting while W others are fit; one that answers, and wrongly, is refused. A
mount that hangs is such a host: see `Replicas.probe`.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from fedsecure.checkpoint.replicate import Replicas
from fedsecure.config import AggregatorConfig
from fedsecure.placement import BucketConfig
from fedsecure.stores import Store

log = logging.getLogger(__name__)

DIAL_SECONDS = 2.0
_PORTS = {"https": 443, "http": 80}


def require_fit(
    config: AggregatorConfig,
    stores: Sequence[tuple[str, Store]],
    federation: str,
    dial: Callable[[str, int], bool] | None = None,
) -> None:
    """Return if the stores keep their promises, and at least W can be reached.

    Parameters
    ----------
    stores : sequence of (str, Store)
        What `open_stores` made of the configuration.
    federation : str
        Whose data they must hold.
    dial : callable, optional
        (host, port) -> whether a connection is made; for tests.

    Raises
    ------
    ConfigurationError
        A store breaks a promise, holds another federation's data, or is a folder that
        cannot be written; or fewer than W are there. It names each.
    """
    asked = _connects if dial is None else dial
    silent = {
        store.shown
        for store in config.stores
        if isinstance(store, BucketConfig) and not asked(*_place(store.url))
    }
    there = [(name, store) for name, store in stores if name not in silent]
    if len(there) < config.quorum:
        there, silent = [*stores], set()  # the probe says of each what is wrong
    for name in sorted(silent):
        log.warning(
            "store %s takes no connection: %d others are enough to start; mend it, "
            "until then no other may fail",
            name,
            len(there),
        )
    Replicas(there, config.quorum).probe(federation)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), DIAL_SECONDS).close()
    except OSError:
        return False
    return True
