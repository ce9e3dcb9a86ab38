"""The lease in PostgreSQL while clients and servers are killed and stopped."""

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsecure import tables
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.metadata import JournalEntry, Step
from tests.fakes import takeover
from tests.fakes.servers import Postgresql, no_postgresql, postgresql

TTL = 2.0
ENTRY = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql()),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with postgresql() as made:
        yield made


@pytest.fixture
def settings(server: Postgresql) -> dict[str, object]:
    return {"url": server.url, "schema": f"s{uuid.uuid4().hex}", "timeout": 2.0}


def test_killed_leader_is_followed_after_its_ttl(settings: dict[str, object]) -> None:
    seconds = takeover.killed_leader("postgresql", settings, TTL)
    assert TTL / 2 < seconds < 2 * TTL


def test_killed_leader_under_a_supervisor_is_followed_at_once(
    settings: dict[str, object],
) -> None:
    assert takeover.supervised_leader("postgresql", settings, TTL) < TTL / 2


@pytest.mark.parametrize("turn", range(3))
def test_leader_stopped_amid_its_writes_is_followed_and_fenced(
    settings: dict[str, object], turn: int
) -> None:
    seconds = takeover.paused_leader("postgresql", settings, TTL)
    assert TTL / 2 < seconds < 2 * TTL


def test_lease_that_is_renewed_is_nobody_elses(settings: dict[str, object]) -> None:
    board = takeover.engine("postgresql", settings)
    lease = board.leases.acquire("agg-1", "a", 1.5)
    assert lease is not None
    takeover.outlived(board, lease)


def test_two_of_one_name_are_told_apart_by_term(settings: dict[str, object]) -> None:
    takeover.one_name("postgresql", settings, TTL)


@pytest.mark.chaos  # long: it waits for a server that is silent
def test_every_question_to_a_stopped_server_ends_in_time(
    server: Postgresql, settings: dict[str, object]
) -> None:
    takeover.silent_server(
        "postgresql", settings, server.process.pause, server.process.resume, limit=5.0
    )


def test_leader_of_a_stopped_server_stops_by_itself(
    server: Postgresql, settings: dict[str, object]
) -> None:
    takeover.self_demotion(
        "postgresql", settings, server.process.pause, server.process.resume, 3.0
    )


def test_lease_ends_on_the_servers_clock(
    server: Postgresql, settings: dict[str, object]
) -> None:
    board = takeover.engine("postgresql", settings)
    lease = board.leases.acquire("agg-1", "a", 30.0)
    assert lease is not None
    server.run("UPDATE lease SET ends = clock_timestamp()", settings["schema"])
    assert board.leases.read() is None
    assert board.leases.renew(lease) is None


def test_term_above_the_lease_ends_its_renewal(settings: dict[str, object]) -> None:
    board = takeover.engine("postgresql", settings)
    lease = board.leases.acquire("agg-1", "a", 30.0)
    assert lease is not None
    board.journal.append(lease.term + 5, [ENTRY])
    assert board.leases.renew(lease) is None


def test_session_that_the_server_ended_fails_once_and_heals(
    server: Postgresql, settings: dict[str, object]
) -> None:
    board = takeover.engine("postgresql", settings)
    board.journal.append(1, [])
    server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'fedsecure'"
    )
    with pytest.raises(StorageError, match="could not append"):
        board.journal.append(1, [ENTRY])
    board.journal.append(1, [ENTRY])
    assert list(board.journal.entries("run", 0)) == [ENTRY]


def test_transaction_left_open_by_others_is_waited_for_within_bounds(
    server: Postgresql, settings: dict[str, object]
) -> None:
    board = takeover.engine("postgresql", settings)
    with server._connect() as other:
        other.autocommit = False
        other.execute(
            "SELECT set_config('search_path', %s, true)", [settings["schema"]]
        )
        other.execute("SELECT term FROM lease FOR UPDATE")
        start = time.monotonic()
        with pytest.raises(StorageError, match="timeout"):
            board.journal.append(1, [ENTRY])
        assert time.monotonic() - start < 5
        other.rollback()
    board.journal.append(1, [ENTRY])


def test_server_that_crashed_kept_term_and_journal() -> None:
    with postgresql() as server:
        board = takeover.engine("postgresql", {"url": server.url})
        lease = board.leases.acquire("agg-1", "a", 0.2)
        assert lease is not None
        board.journal.append(lease.term, [ENTRY])
        server.crash()
        with pytest.raises(StorageError):
            board.leases.read()
        with pytest.raises(StorageError, match="could not connect"):
            board.leases.read()
        server.start()
        assert list(board.journal.entries("run", 0)) == [ENTRY]
        after, _ = takeover.take_over(board, limit=5)
        assert after.term == lease.term + 1


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("fsync=off", "has fsync=off, must be on"),
        ("default_transaction_read_only=on", "is read only: name the primary"),
    ],
)
def test_server_that_must_not_hold_a_lease_is_refused_by_name(
    option: str, reason: str
) -> None:
    with postgresql(option) as server, pytest.raises(ConfigurationError) as refused:
        takeover.engine("postgresql", {"url": server.url})
    assert f"127.0.0.1:{server.port}/postgres {reason}" in str(refused.value)


def test_commits_are_durable_although_the_server_says_otherwise() -> None:
    with postgresql("synchronous_commit=off") as server:
        board = takeover.engine("postgresql", {"url": server.url})
        sessions = board.journal._sessions  # type: ignore[attr-defined]
        assert sessions.ask("look", "SHOW synchronous_commit") == [("on",)]


def test_hot_standby_is_refused_at_start_and_is_silence_later() -> None:
    with postgresql() as server:
        board = takeover.engine("postgresql", {"url": server.url})
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server.start()
        with pytest.raises(ConfigurationError, match="is a hot standby: name the"):
            takeover.engine("postgresql", {"url": server.url})
        for _ in range(2):
            with pytest.raises(StorageError):
                board.leases.acquire("agg-1", "a", 3.0)


def test_password_comes_from_a_private_file_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = uuid.uuid4().hex
    with postgresql(password=secret) as server:
        good = takeover.named(tmp_path / "good", f"*:*:*:fed:{secret}\n")
        bad = takeover.named(tmp_path / "bad", "*:*:*:fed:wrong-word\n")
        board = takeover.engine("postgresql", {"url": server.url, "passfile": good})
        board.journal.append(1, [ENTRY])
        with pytest.raises(StorageError, match="authentication failed") as refused:
            takeover.engine("postgresql", {"url": server.url, "passfile": bad})
        monkeypatch.setenv("PGPASSFILE", str(good))
        board = takeover.engine("postgresql", {"url": server.url})
        assert list(board.journal.entries("run", 0)) == [ENTRY]
        seen = server.run("SELECT query FROM pg_stat_activity")
        monkeypatch.delenv("PGPASSFILE")
    assert "wrong-word" not in str(refused.value)
    assert secret not in f"{board!r}{board.leases!r}{seen}"


def test_engine_that_is_down_at_start_is_a_clear_line() -> None:
    with pytest.raises(StorageError, match=r"127.0.0.1:1/db: could not connect"):
        takeover.engine("postgresql", {"url": "postgresql://fed@127.0.0.1:1/db"})


def test_forked_child_leaves_its_parents_session_alone(
    settings: dict[str, object],
) -> None:
    board = takeover.engine("postgresql", settings)
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


def test_server_is_found_by_its_local_socket(server: Postgresql) -> None:
    url = f"postgresql://fed@/postgres?host={server.folder}&port={server.port}"
    board = takeover.engine("postgresql", {"url": url, "schema": "by_socket"})
    board.journal.append(1, [ENTRY])
    assert list(board.journal.entries("run", 0)) == [ENTRY]


def test_primary_is_found_among_hosts_of_which_one_is_down(server: Postgresql) -> None:
    url = f"postgresql://fed@127.0.0.1:1,127.0.0.1:{server.port}/postgres"
    board = takeover.engine("postgresql", {"url": url, "schema": "two_hosts"})
    board.journal.append(1, [ENTRY])
    assert list(board.journal.entries("run", 0)) == [ENTRY]


def test_members_that_start_at_once_make_one_set_of_tables(
    settings: dict[str, object],
) -> None:
    with ThreadPoolExecutor(6) as pool:
        boards = list(
            pool.map(lambda _: takeover.engine("postgresql", settings), range(6))
        )
    won = [board.leases.acquire("agg", "a", 30.0) for board in boards]
    assert sum(lease is not None for lease in won) == 1


def test_tables_of_a_later_version_are_refused(
    server: Postgresql, settings: dict[str, object]
) -> None:
    takeover.engine("postgresql", settings)
    server.run("INSERT INTO format VALUES (2)", settings["schema"])
    with pytest.raises(ConfigurationError, match=r"format 2, this version knows 1"):
        takeover.engine("postgresql", settings)


def test_tables_are_brought_forward_and_the_journal_is_kept(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = takeover.engine("postgresql", settings)
    board.journal.append(3, [ENTRY])
    second = "INSERT INTO format VALUES (2); ALTER TABLE head ADD COLUMN note text;"
    monkeypatch.setattr(tables, "STEPS", (*tables.STEPS, second))
    later = takeover.engine("postgresql", settings)
    assert list(later.journal.entries("run", 0)) == [ENTRY]
    found = later.journal._sessions.ask("look", "SELECT max(version) FROM format")  # type: ignore[attr-defined]
    assert found == [(2,)]
