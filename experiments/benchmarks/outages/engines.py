"""Engines of lease and journal for a while, each sample in a corner of its own."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

TTL = 3.0


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that runs.

    Attributes
    ----------
    plug : str
    corner : callable
        Settings of a lease that nobody used before.
    overrides : callable
        The same for a federation's configuration.
    ports : tuple of int
        Where its servers listen; none if there is no server.
    """

    plug: str
    corner: Callable[[], Mapping[str, object]]
    overrides: Callable[[], list[str]]
    ports: tuple[int, ...] = ()


@contextlib.contextmanager
def embedded() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="fed-bench-") as folder:
        numbers = count()
        yield Running("embedded", lambda: {"path": f"{folder}/{next(numbers)}"}, list)


@contextlib.contextmanager
def etcd() -> Iterator[Running]:
    from tests.fakes.servers import etcd as started  # noqa: PLC0415

    with started(3) as cluster:
        numbers = count()

        def corner() -> Mapping[str, object]:
            prefix = f"/bench/{next(numbers)}/"
            return {"endpoints": cluster.endpoints, "prefix": prefix, "timeout": 1.0}

        def overrides() -> list[str]:
            ends = ",".join(cluster.endpoints)
            prefix = f"lease.prefix=/bench/{next(numbers)}/"
            return ["lease=etcd", f"lease.endpoints=[{ends}]", prefix]

        ports = tuple(client for client, _ in cluster.ports)
        yield Running("etcd", corner, overrides, ports)


@contextlib.contextmanager
def postgresql() -> Iterator[Running]:
    from tests.fakes.servers import postgresql as started  # noqa: PLC0415

    with started() as server:
        numbers = count()

        def corner() -> Mapping[str, object]:
            schema = f"bench{next(numbers)}"
            return {"url": server.url, "schema": schema, "timeout": 1.0}

        def overrides() -> list[str]:
            schema = f"lease.database_schema=bench{next(numbers)}"
            return ["lease=postgresql", f"lease.url={server.url}", schema]

        yield Running("postgresql", corner, overrides, (server.port,))


ENGINES = {"embedded": embedded, "etcd": etcd, "postgresql": postgresql}
