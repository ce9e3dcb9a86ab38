"""The state machine of engines over real servers: PostgreSQL and etcd.

Short in `make test`. The members' time is the test's: when it passes, PostgreSQL's
lease is moved towards its end by as much, and an etcd lease that would have ended is
revoked, as the cluster itself does it. A crash drops a member's view of the server, not
its lease.
"""

import uuid
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test

from fedsecure import registry
from fedsecure.metadata import Engine
from tests.chaos.test_engine_machine import Leases, _settings
from tests.fakes.servers import (
    Etcd,
    Postgresql,
    etcd,
    no_etcd,
    no_postgresql,
    postgresql,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]
SHORT, LONG = (4, 25), (60, 60)
SOONER = """
UPDATE lease SET ends = ends - make_interval(secs => %(seconds)s)
WHERE ends > '-infinity'
"""


class PostgresqlLeases(Leases):
    """Over one schema of its own."""

    server: ClassVar[Postgresql]

    def __init__(self) -> None:
        super().__init__()
        self.schema = f"s{uuid.uuid4().hex}"
        self.opened: list[Engine] = []
        self.view = self.open("agg-1")

    def open(self, name: str) -> Engine:
        _ = name
        made: Engine = registry.load("metadata", "postgresql").create(
            {
                "url": self.server.url,
                "schema": self.schema,
                "timeout": 10,
                "trial": False,
            }
        )
        self.opened.append(made)
        return made

    def teardown(self) -> None:
        for each in self.opened:
            each.leases._sessions.close()  # type: ignore[attr-defined]

    def pass_time(self, seconds: float) -> None:
        sessions = self.view.leases._sessions  # type: ignore[attr-defined]
        sessions.ask("let time pass", SOONER, {"seconds": seconds}, writes=True)


class EtcdLeases(Leases):
    """Below one prefix of its own."""

    cluster: ClassVar[Etcd]

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"/{uuid.uuid4().hex}/"
        self.view = self.open("agg-1")
        self.silent = 0.0

    def open(self, name: str) -> Engine:
        _ = name
        made: Engine = registry.load("metadata", "etcd").create(
            {
                "endpoints": self.cluster.endpoints,
                "prefix": self.prefix,
                "timeout": 10,
                "trial": False,
            }
        )
        return made

    def pass_time(self, seconds: float) -> None:
        # A renewal sent meanwhile counts from its own moment.
        renewed = max((m.standing.renewed for m in self.members.values()), default=0.0)
        now = max(m.clock.now() for m in self.members.values())
        board = self.view.leases
        lease = board.read()
        if lease is not None and now - renewed > lease.ttl:
            board.release(lease)


@pytest.fixture(scope="module")
def postgresql_machine() -> Iterator[type[Leases]]:
    if no_postgresql():
        pytest.skip(no_postgresql())
    with postgresql() as server:
        PostgresqlLeases.server = server
        yield PostgresqlLeases


@pytest.fixture(scope="module")
def etcd_machine() -> Iterator[type[Leases]]:
    if no_etcd():
        pytest.skip(no_etcd())
    with etcd(1) as cluster:
        EtcdLeases.cluster = cluster
        yield EtcdLeases


@pytest.fixture(params=["postgresql", "etcd"])
def machine(request: pytest.FixtureRequest) -> type[Leases]:
    made: type[Leases] = request.getfixturevalue(f"{request.param}_machine")
    return made


def test_no_order_of_events_breaks_a_server(machine: type[Leases]) -> None:
    run_state_machine_as_test(machine, settings=_settings(*SHORT))


@pytest.mark.chaos
def test_no_long_order_of_events_breaks_a_server(machine: type[Leases]) -> None:
    run_state_machine_as_test(machine, settings=_settings(*LONG))
