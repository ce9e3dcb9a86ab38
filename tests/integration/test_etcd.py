"""The lease in etcd while clients and members are killed and stopped."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.etcdgateway import put
from fedsecure.metadata import Engine, JournalEntry, Step
from tests.fakes import takeover
from tests.fakes.certificates import write_certificates
from tests.fakes.servers import Etcd, etcd, no_etcd

TTL = 2.0  # the shortest etcd grants with an election timeout of 1 s
ENTRY = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.skipif(bool(no_etcd()), reason=no_etcd()),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Etcd]:
    with etcd() as made:
        yield made


@pytest.fixture
def settings(cluster: Etcd) -> dict[str, object]:
    return {
        "endpoints": cluster.endpoints,
        "prefix": f"/{uuid.uuid4().hex}/",
        "timeout": 3.0,
    }


def _pause(cluster: Etcd) -> None:
    for member in cluster.members:
        member.pause()


def _resume(cluster: Etcd) -> None:
    for member in cluster.members:
        member.resume()


def _fill(board: Engine) -> None:
    for number in range(20):
        detail = b"x" * 100_000
        entry = replace(ENTRY, round=number, operation=f"op-{number}", detail=detail)
        board.journal.append(1, [entry])


def _answers(cluster: Etcd, settings: dict[str, object]) -> None:
    """Wait until a write is acknowledged again."""
    board = takeover.engine("etcd", {**settings, "prefix": "/answers/", "timeout": 20})
    board.journal.append(board.leases._keys.highest(board.leases._look("look")), [])  # type: ignore[attr-defined]


def test_killed_leader_is_followed_after_its_ttl(settings: dict[str, object]) -> None:
    seconds = takeover.killed_leader("etcd", settings, TTL)
    assert TTL / 2 < seconds < 2 * TTL


def test_killed_leader_under_a_supervisor_is_followed_at_once(
    settings: dict[str, object],
) -> None:
    assert takeover.supervised_leader("etcd", settings, TTL) < TTL / 2


@pytest.mark.parametrize("turn", range(3))
def test_leader_stopped_amid_its_writes_is_followed_and_fenced(
    settings: dict[str, object], turn: int
) -> None:
    seconds = takeover.paused_leader("etcd", settings, TTL)
    assert TTL / 2 < seconds < 2 * TTL


def test_lease_that_is_renewed_is_nobody_elses(settings: dict[str, object]) -> None:
    board = takeover.engine("etcd", settings)
    lease = board.leases.acquire("agg-1", "a", TTL)
    assert lease is not None
    takeover.outlived(board, lease)


def test_two_of_one_name_are_told_apart_by_term(settings: dict[str, object]) -> None:
    takeover.one_name("etcd", settings, TTL)


def test_another_process_of_the_aggregator_renews_and_releases(
    settings: dict[str, object],
) -> None:
    one, two = (takeover.engine("etcd", settings) for _ in range(2))
    lease = one.leases.acquire("agg-1", "a", 30.0)
    assert lease is not None
    assert two.leases.renew(lease) == lease
    two.leases.release(lease)
    assert one.leases.read() is None
    assert one.leases.renew(lease) is None


def test_term_above_the_lease_ends_its_renewal(settings: dict[str, object]) -> None:
    board = takeover.engine("etcd", settings)
    lease = board.leases.acquire("agg-1", "a", 30.0)
    assert lease is not None
    board.journal.append(lease.term + 5, [ENTRY])
    assert board.leases.renew(lease) is None


@pytest.mark.chaos  # long: it waits for a server that is silent
def test_every_question_to_a_stopped_cluster_ends_in_time(
    cluster: Etcd, settings: dict[str, object]
) -> None:
    takeover.silent_server(
        "etcd",
        settings,
        lambda: _pause(cluster),
        lambda: _resume(cluster),
        limit=6.0,
    )


def test_leader_of_a_stopped_cluster_stops_by_itself(
    cluster: Etcd, settings: dict[str, object]
) -> None:
    _answers(cluster, settings)
    takeover.self_demotion(
        "etcd", settings, lambda: _pause(cluster), lambda: _resume(cluster), 3.0
    )
    _answers(cluster, settings)


def test_one_member_stopped_is_passed_over(
    cluster: Etcd, settings: dict[str, object]
) -> None:
    board = takeover.engine("etcd", settings)
    lease = board.leases.acquire("agg-1", "a", 30.0)
    assert lease is not None
    leader = cluster.leader()
    for number, member in enumerate(cluster.members):
        if number == leader:
            continue
        member.pause()
        try:
            assert board.leases.renew(lease) == lease
            board.journal.append(lease.term, [])
        finally:
            member.resume()


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_lease_and_journal_outlive_one_member_of_three(
    cluster: Etcd, settings: dict[str, object], whom: str
) -> None:
    board = takeover.engine("etcd", {**settings, "timeout": 6.0})
    lease = board.leases.acquire("agg-1", "a", 10.0)
    assert lease is not None
    number = cluster.leader()
    number = number if whom == "leader" else (number + 1) % 3
    cluster.members[number].kill()
    try:
        assert board.leases.renew(lease) == lease
        board.journal.append(lease.term, [ENTRY])
        assert board.leases.acquire("agg-2", "b", 3.0) is None
        # An aggregator that starts now finds two members and is content.
        other = takeover.engine("etcd", {**settings, "timeout": 6.0})
        assert list(other.journal.entries("run", 0)) == [ENTRY]
    finally:
        cluster.start(number)
    _answers(cluster, settings)


@pytest.mark.chaos  # long: it waits for a server that is silent
def test_without_a_majority_nobody_leads_and_nothing_is_written() -> None:
    with etcd() as cluster:
        settings = {"endpoints": cluster.endpoints, "timeout": 1.5}
        board = takeover.engine("etcd", settings)
        lease = board.leases.acquire("agg-1", "a", 10.0)
        assert lease is not None
        for number in (0, 1):
            cluster.members[number].kill()
        questions: list[Callable[[], object]] = [
            board.leases.read,
            lambda: board.leases.renew(lease),
            lambda: board.leases.acquire("agg-2", "b", 3.0),
            lambda: board.journal.append(lease.term, [ENTRY]),
        ]
        for question in questions:
            start = time.monotonic()
            with pytest.raises(StorageError):
                question()
            assert time.monotonic() - start < 4
        for number in (0, 1):
            cluster.start(number)
        again = takeover.engine("etcd", {**settings, "timeout": 20})
        again.journal.append(lease.term, [ENTRY])
        assert list(again.journal.entries("run", 0)) == [ENTRY]


def test_cluster_that_does_not_sync_is_refused_by_name() -> None:
    with (
        etcd(1, "--unsafe-no-fsync") as cluster,
        pytest.raises(ConfigurationError, match="wrote without fsync") as refused,
    ):
        takeover.engine("etcd", {"endpoints": cluster.endpoints})
    assert cluster.endpoints[0] in str(refused.value)


def test_cluster_that_is_full_is_refused_by_its_alarm() -> None:
    with etcd(1, "--quota-backend-bytes=200000") as cluster:
        settings = {"endpoints": cluster.endpoints}
        board = takeover.engine("etcd", settings)
        with pytest.raises(StorageError, match="space exceeded"):
            _fill(board)
        with pytest.raises(ConfigurationError, match="has the alarm NOSPACE"):
            takeover.engine("etcd", settings)


def test_members_of_two_clusters_are_refused(cluster: Etcd) -> None:
    with etcd(1) as other, pytest.raises(ConfigurationError, match="of 2 clusters"):
        takeover.engine(
            "etcd", {"endpoints": [cluster.endpoints[0], other.endpoints[0]]}
        )


def test_keys_of_a_later_version_are_refused(settings: dict[str, object]) -> None:
    board = takeover.engine("etcd", settings)
    keys = board.leases._keys  # type: ignore[attr-defined]
    keys.transact("write", [], [put(f"{keys.prefix}format", b"2")])
    with pytest.raises(ConfigurationError, match=r"of format 2, .* knows 1: upgrade"):
        takeover.engine("etcd", settings)


def test_client_certificate_opens_a_cluster_that_asks_for_one(tmp_path: Path) -> None:
    tls = write_certificates(tmp_path)
    with etcd(1, tls=tls) as cluster:
        settings = {
            "endpoints": cluster.endpoints,
            "ca_cert": tls / "ca.pem",
            "cert": tls / "client.pem",
            "key": tls / "client.key",
        }
        board = takeover.engine("etcd", settings)
        lease = board.leases.acquire("agg-1", "a", 3.0)
        assert lease is not None
        assert board.leases.renew(lease) == lease
        without = {**settings, "cert": None, "key": None, "timeout": 1.0}
        with pytest.raises(StorageError, match="no member answers"):
            takeover.engine("etcd", without)
        stranger = {**settings, "ca_cert": None, "timeout": 1.0}
        with pytest.raises(StorageError, match="no member answers"):
            takeover.engine("etcd", stranger)


def test_forked_child_has_connections_of_its_own(settings: dict[str, object]) -> None:
    board = takeover.engine("etcd", settings)
    board.journal.append(1, [])
    child = os.fork()
    if child == 0:
        try:
            board.journal.append(1, [ENTRY])
        except BaseException:  # noqa: BLE001 - the exit status is the answer
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    board.journal.append(1, [ENTRY])
    assert list(board.journal.entries("run", 0)) == [ENTRY]
