"""Servers of the engines that run out of room, for real, and get some again."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fedsecure.errors import StorageError
from fedsecure.etcdgateway import Gateway, Refused, field, find_cluster, text
from fedsecure.metadata import Journal, JournalEntry, Step
from tests.fakes.servers import Etcd, Postgresql, etcd, postgresql

Settings = dict[str, object]
NO_ROOM = "No space left on device: free space on the disk of that server"
_SIZES = (1500, 300, 40, 0)
_QUOTA = 3_000_000


@dataclass(frozen=True, slots=True)
class FullServer:
    """A server whose room a test takes and gives back.

    Attributes
    ----------
    plug : str
        The engine that asks it.
    settings : dict
        Of that engine.
    exhaust : callable
        (journal, term) -> what was said to the write that found no room: takes all of
        it, so that the next write of that term finds none either.
    heal : callable
        What an operator does: makes room, starts what ended, disarms the alarm.
    ended : callable
        Whether the server ended by itself.
    says : str
        What every later write is told meanwhile.
    """

    plug: str
    settings: Settings
    exhaust: Callable[[Journal, int], StorageError]
    heal: Callable[[], None]
    ended: Callable[[], bool]
    says: str


def _refused(journal: Journal, term: int, *sizes: int) -> StorageError:
    """Write rows of another run, larger ones first, until not even a small one fits."""
    said = StorageError()
    for size in sizes:
        while True:
            number, name = int.from_bytes(os.urandom(4), "big"), os.urandom(4).hex()
            detail = os.urandom(size)
            entry = JournalEntry("filler", number, Step.OPEN, "", name, detail)
            try:
                journal.append(term, [entry])
            except StorageError as full:
                said = full
                break
    return said


def _of_postgresql(server: Postgresql, says: str, *sizes: int) -> FullServer:
    disk = server.disk
    assert disk is not None

    def exhaust(journal: Journal, term: int) -> StorageError:
        disk.fill()
        return _refused(journal, term, *sizes)

    def heal() -> None:
        disk.free()
        while not server.answers():  # it may be at its own recovery, or end by it
            if not server.process.alive():
                server.start()
            time.sleep(0.02)

    settings: Settings = {"url": server.url, "timeout": 2.0, "trial": False}
    ended = lambda: not server.process.alive()  # noqa: E731
    return FullServer("postgresql", settings, exhaust, heal, ended, says)


@contextmanager
def postgresql_without_data_room() -> Iterator[FullServer]:
    """Yield a server whose tables cannot grow: it refuses, and lives on."""
    with postgresql(data_mib=64) as server:
        yield _of_postgresql(server, NO_ROOM, *_SIZES)


@contextmanager
def postgresql_without_log_room() -> Iterator[FullServer]:
    """Yield a server whose write-ahead log cannot grow: it dies of it."""
    with postgresql("min_wal_size=2MB", "max_wal_size=4MB", wal_mib=8) as server:
        yield _of_postgresql(server, "could not connect", 30_000)


@contextmanager
def etcd_without_quota(size: int = 1) -> Iterator[FullServer]:
    """Yield a cluster whose quota ends: it raises an alarm, and only reads."""
    with etcd(size, f"--quota-backend-bytes={_QUOTA}") as cluster:
        settings: Settings = {"endpoints": cluster.endpoints, "timeout": 3.0}
        gateway = Gateway(find_cluster(settings, 10.0))

        def exhaust(journal: Journal, term: int) -> StorageError:
            given = {"key": text(b"filler"), "value": text(os.urandom(200_000))}
            for _ in range(2 * _QUOTA // 200_000):
                with suppress(StorageError):
                    gateway.ask("fill", "kv/put", given)
            return _refused(journal, term, 1)

        yield FullServer(
            "etcd",
            {**settings, "trial": False},
            exhaust,
            lambda: _make_room(gateway, len(cluster.members)),
            lambda: False,
            "database space exceeded: its quota (--quota-backend-bytes) is used up",
        )


def _make_room(gateway: Gateway, members: int) -> None:
    """Compact, defragment, disarm: what docs/operate.md tells an operator to do."""
    now = gateway.ask("look", "kv/range", {"key": text(b"filler")})
    revision = str(field(now, "header", "revision"))
    body = {"revision": revision, "physical": True}
    with suppress(Refused):  # compacted before
        gateway.ask("compact", "kv/compaction", body)
    for member in range(members):
        gateway.ask_member(member, "maintenance/defragment", {})
    alarms = gateway.ask("look", "maintenance/alarm", {"action": "GET"})
    for each in alarms.get("alarms", []):
        gateway.ask("disarm", "maintenance/alarm", {**each, "action": "DEACTIVATE"})


@contextmanager
def etcd_without_disk() -> Iterator[FullServer]:
    """Yield a cluster of one member whose disk is full: it dies of it."""
    with etcd(1, disk_mib=160) as cluster:
        yield FullServer(
            "etcd",
            {"endpoints": cluster.endpoints, "timeout": 1.0, "trial": False},
            lambda journal, term: _fill_disk(cluster, journal, term),
            lambda: _free_disk(cluster),
            lambda: not cluster.members[0].alive(),
            "Connection refused; does that member run?",
        )


def _fill_disk(cluster: Etcd, journal: Journal, term: int) -> StorageError:
    assert cluster.disk is not None
    cluster.disk.fill()
    return _refused(journal, term, 100_000)


def _free_disk(cluster: Etcd) -> None:
    assert cluster.disk is not None
    cluster.disk.free()
    if not cluster.members[0].alive():
        cluster.start(0)
    gateway = Gateway(find_cluster({"endpoints": cluster.endpoints}, 20.0))
    gateway.ask("look", "kv/range", {"key": text(b"filler")})
