"""Engine, stores and firewall of docs/deploy.md on three namespaces, before a daemon.

The whole federation over them, with a host cut off and one lost, is `make chaos`:
test_three_hosts.
"""

from collections.abc import Iterator

import pytest

from tests.fakes.hosts import require_hosts
from tests.fakes.servers import no_etcd
from tests.fakes.threehosts import AGGREGATORS, PORT, SERVERS, SITES, ThreeHosts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(200),
    pytest.mark.skipif(bool(no_etcd()), reason=no_etcd()),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeHosts]:
    require_hosts()
    federation = ThreeHosts(tmp_path_factory.mktemp("hosts"), rounds=1)
    federation.provision()
    federation.plan()
    try:
        federation.start(daemons=False)
        yield federation
    finally:
        federation.close()


def doctor(three: ThreeHosts, name: str) -> str:
    command = ["-m", "fedsecure.cli", "doctor", "--kit", str(three.kits / name)]
    return three.on(AGGREGATORS[name], *command)


def test_doctor_finds_every_member_and_every_copy_by_name(three: ThreeHosts) -> None:
    told = doctor(three, "agg-1")
    for host in SERVERS:
        for port in (2379, 8333):
            assert f"{three.hosts.names[host]}:{port} answers" in told
    assert "etcd says who leads" in told
    assert f"{three.hosts.names['host-1']} is {three.hosts.addresses['host-1']}" in told


def test_the_run_is_seen_from_the_other_aggregators_host(three: ThreeHosts) -> None:
    command = ["-m", "fedsecure.cli", "leader", "show", str(three.kits / "agg-2")]
    assert "0 of 1 rounds" in three.on("host-2", *command)


def test_servers_listen_at_their_hosts_address_or_on_loopback(
    three: ThreeHosts,
) -> None:
    for host in SERVERS:
        heard = {s.rpartition(":")[0] for s in three.hosts.listening(host)}
        assert heard == {three.hosts.addresses[host], "127.0.0.1"}


@pytest.mark.parametrize("port", [2379, 2380, 8333])
def test_the_firewall_keeps_engine_and_stores_from_sites(
    three: ThreeHosts, port: int
) -> None:
    assert three.hosts.reaches("host-2", "host-1", port)
    assert not three.hosts.reaches(SITES[0], "host-1", port)


def test_a_host_that_is_cut_off_is_named_by_doctor_and_is_back_when_it_is_healed(
    three: ThreeHosts,
) -> None:
    three.hosts.cut("host-3")
    try:
        told = doctor(three, "agg-1")
        lines = [line for line in told.splitlines() if "host-3" in line]
        assert [line.split()[:2] for line in lines] == [
            ["warn", "engine:"],
            ["warn", "store:"],
        ]
        assert not three.hosts.reaches("host-1", "host-3", 8333)
    finally:
        three.hosts.heal("host-3")
    assert three.hosts.reaches("host-1", "host-3", 8333)


def test_nothing_waits_at_the_port_before_the_daemon_does(three: ThreeHosts) -> None:
    assert not three.serves("agg-1")
    assert not three.hosts.reaches(SITES[0], "host-1", PORT)
