"""Where a PostgreSQL server may be, and what never leaves."""

import os
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from fedsecure import postgres
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    OutcomeUnknown,
    StorageError,
)
from fedsecure.postgres import Server, Sessions, find_server

HERE = "postgresql://fed@127.0.0.1:5433/db"
AWAY = "postgresql://fed@db.example:5432/db"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the libpq settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _find(url: str, **more: object) -> Server:
    return find_server(url, "fedsecure", timeout=1.0, **more)  # type: ignore[arg-type]


def test_server_is_shown_by_host_port_and_database() -> None:
    assert _find(HERE).shown == "postgresql at 127.0.0.1:5433/db"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://fed:s3cret-word@127.0.0.1/db",
        "host=127.0.0.1 password=s3cret-word",
        "postgresql://fed@127.0.0.1/db?password=s3cret-word",
        "postgresql://fed@127.0.0.1/db?sslpassword=s3cret-word",
    ],
)
def test_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="mode 0600") as refused:
        _find(url)
    assert "s3cret-word" not in str(refused.value)


def test_password_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", "s3cret-word")
    with pytest.raises(ConfigurationError, match="PGPASSWORD") as refused:
        _find(HERE)
    assert "s3cret-word" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["postgresql://fed:s3cret%-word@h/db", "what=s3cret-word", "s3cret-word"]
)
def test_url_that_libpq_does_not_read_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not one that libpq reads") as refused:
        _find(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("schema", ["", "A", "a-b", "a b", "1a", "a" * 64, "a;b"])
def test_schema_that_is_no_plain_name_is_refused(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="63 of a-z"):
        find_server(HERE, schema, timeout=1.0)


def test_passfile_that_others_can_read_is_refused(home: Path) -> None:
    secret = home / "pass"
    secret.write_text("x")
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError, match="mode 0644, must be a file of 0600"):
        _find(HERE, passfile=secret)


@pytest.mark.parametrize("where", [".pgpass", "elsewhere"])
def test_passfile_of_libpq_that_others_can_read_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (home / where).touch(0o640)
    if where == "elsewhere":
        monkeypatch.setenv("PGPASSFILE", str(home / where))
    with pytest.raises(ConfigurationError, match="mode 0640"):
        _find(HERE)


def test_service_file_that_others_can_read_is_refused(home: Path) -> None:
    (home / ".pg_service.conf").touch(0o640)
    with pytest.raises(ConfigurationError, match="mode 0640"):
        _find("service=fed")
    (home / ".pg_service.conf").chmod(0o600)
    assert _find("service=fed").shown == "postgresql at fed"


@pytest.mark.parametrize("mode", ["", "disable", "prefer", "require"])
def test_other_machine_without_verified_tls_is_refused(mode: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"db\.example, which is another machine"
    ):
        _find(f"{AWAY}?sslmode={mode}" if mode else AWAY)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_other_machine_with_verified_tls_passes(mode: str) -> None:
    assert mode in _find(f"{AWAY}?sslmode={mode}").conninfo


def test_one_of_several_hosts_elsewhere_needs_tls_too() -> None:
    with pytest.raises(ConfigurationError, match=r"to b\.example"):
        _find("postgresql://fed@127.0.0.1,b.example/db")


def test_plain_connection_can_be_asked_for_by_its_name() -> None:
    assert _find(AWAY, insecure_plain=True).insecure_plain


def test_of_several_hosts_the_primary_is_asked() -> None:
    assert (
        "target_session_attrs=primary"
        in _find(f"{AWAY.replace('db.example', 'a,b')}?sslmode=verify-full").conninfo
    )
    assert "target_session_attrs" not in _find(HERE).conninfo


@pytest.mark.parametrize(
    "wanted",
    [
        "statement_timeout=1000",
        "lock_timeout=1000",
        "idle_in_transaction_session_timeout=1000",
        "synchronous_commit=on",
        "search_path=fedsecure",
        "tcp_user_timeout=1000",
    ],
)
def test_every_session_is_bounded_and_durable(wanted: str) -> None:
    assert wanted in _find(HERE).conninfo


def test_options_of_the_url_cannot_undo_ours() -> None:
    conninfo = _find(f"{HERE}?options=-csynchronous_commit%3Doff").conninfo
    off, on = "synchronous_commit=off", "synchronous_commit=on"
    assert conninfo.index(off) < conninfo.index(on)


@pytest.mark.parametrize(
    ("standing", "problem"),
    [
        ((True, "on", "on", "on", "1s", 150000), "is a hot standby"),
        ((False, "on", "on", "on", "1s", 150000), "is read only"),
        ((False, "off", "on", "off", "1s", 150000), "has fsync=off"),
        ((False, "on", "local", "off", "1s", 150000), "has synchronous_commit=local"),
        ((False, "on", "on", "off", "0", 150000), "drops statement_timeout"),
        ((False, "on", "on", "off", "1s", 120020), "is version 12, must be 13"),
        ((False, "on", "on", "off", "1s", 130000), ""),
        ((False, "on", "remote_apply", "off", "1s", 180001), ""),
    ],
)
def test_standing_of_a_server_is_judged_by_name(
    standing: tuple[bool, str, str, str, str, int], problem: str
) -> None:
    assert postgres._problem(*standing).startswith(problem)
    assert bool(postgres._problem(*standing)) == bool(problem)


class Broken(postgres._Session):
    """A session that fails as told; no server behind it."""

    failure: psycopg.Error = psycopg.OperationalError("the server closed")
    gone = True

    def __init__(self) -> None:
        pass

    @property
    def closed(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.gone = True

    def execute(self, *_: object, **__: object) -> "psycopg.Cursor[tuple[object]]":
        raise self.failure


def _sessions(session: postgres._Session) -> Sessions:
    made = Sessions(_find(HERE))
    made._idle.append(session)
    return made


def test_write_whose_answer_is_lost_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown, match="could not append: the server closed"):
        _sessions(Broken()).ask("append", "SELECT 1", writes=True)


def test_read_whose_answer_is_lost_is_a_storage_error() -> None:
    with pytest.raises(StorageError) as failed:
        _sessions(Broken()).ask("read", "SELECT 1")
    assert not isinstance(failed.value, OutcomeUnknown)


def test_write_that_the_server_refused_is_no_unknown_outcome() -> None:
    session = Broken()
    session.gone, session.failure = False, psycopg.errors.DiskFull("no space")
    sessions = _sessions(session)
    with pytest.raises(StorageError, match="no space") as failed:
        sessions.ask("append", "SELECT 1", writes=True)
    assert not isinstance(failed.value, OutcomeUnknown)
    assert list(sessions._idle) == [session]


class Panic(psycopg.errors.DiskFull):
    """What a server says before it ends."""

    diag = SimpleNamespace(  # type: ignore[assignment]
        severity_nonlocalized="PANIC",
        message_primary="could not write to file: No space left on device",
    )


def test_write_over_which_a_server_ended_is_an_unknown_outcome() -> None:
    session = Broken()
    session.gone, session.failure = False, Panic("panic")
    sessions = _sessions(session)
    with pytest.raises(OutcomeUnknown, match="free space on the disk of that server"):
        sessions.ask("append", "SELECT 1", writes=True)
    assert not sessions._idle


def test_full_disk_of_a_server_is_said_with_what_to_do() -> None:
    session = Broken()
    session.gone, session.failure = False, psycopg.errors.DiskFull("no space")
    with pytest.raises(StorageError, match=r"no space: free space .* or take a larger"):
        _sessions(session).ask("append", "SELECT 1", writes=True)


def test_words_of_several_lines_become_one() -> None:
    session = Broken()
    session.failure = psycopg.OperationalError("refused\n\tIs it running?")
    with pytest.raises(StorageError, match="connect: refused Is it running"):
        _sessions(session).ask("connect", "SELECT 1")


def test_unique_key_that_is_there_is_said_so() -> None:
    session = Broken()
    session.gone, session.failure = False, psycopg.errors.UniqueViolation("twice")
    with pytest.raises(AlreadyExists):
        _sessions(session).ask("append", "SELECT 1", writes=True)


def test_lost_session_takes_the_idle_ones_with_it() -> None:
    other, sessions = Broken(), _sessions(Broken())
    other.gone = False
    sessions._idle.appendleft(other)
    with pytest.raises(StorageError):
        sessions.ask("read", "SELECT 1")
    assert other.gone
    assert not sessions._idle


def test_server_that_is_down_is_named_without_its_settings() -> None:
    server = find_server("postgresql://fed@127.0.0.1:1/db", "fedsecure", timeout=1.0)
    with pytest.raises(
        StorageError, match=r"127.0.0.1:1/db: could not connect"
    ) as down:
        Sessions(server).ask("read", "SELECT 1")
    assert "statement_timeout" not in str(down.value)
