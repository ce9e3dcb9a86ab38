"""What the embedded engine promises beyond the contract: files, locks, a full disk."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.disk import SystemDisk
from fedsecure.errors import (
    ConfigurationError,
    Conflict,
    OutcomeUnknown,
    StorageError,
)
from fedsecure.metadata import Engine, JournalEntry, Step
from tests.fakes.disk import PowerLost

ENTRY = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
plug = registry.load("metadata", "embedded")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lease"


def _engine(folder: Path) -> Engine:
    engine: Engine = plug.create({"path": folder})
    return engine


def _ask(folder: Path, question: str) -> object:
    connection = sqlite3.connect(folder / "journal.sqlite")
    try:
        return connection.execute(question).fetchone()[0]
    finally:
        connection.close()


@pytest.mark.parametrize("path", [None, "", "relative/folder", 7])
def test_path_must_be_an_absolute_folder(path: object) -> None:
    with pytest.raises(ConfigurationError, match="must be an absolute folder"):
        plug.create({"path": path})


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_network_file_system_is_refused(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = f"/dev/a / ext4 rw 0 0\nhost:/x {folder.parent} {kind} rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    with pytest.raises(ConfigurationError, match=f"is on {kind}"):
        plug.create({"path": folder})
    assert not folder.exists()


def test_journal_is_wal_and_full(folder: Path) -> None:
    _engine(folder)
    connection = plug.Database(folder / "journal.sqlite").connection()
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_tables_are_made_once(folder: Path) -> None:
    # A second start writes nothing, so a writer that was stopped cannot block it.
    _engine(folder)
    writer = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    _engine(folder)
    writer.execute("ROLLBACK")
    writer.close()


def test_member_that_made_the_journal_a_moment_later_uses_the_first_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLite does not wait for a lock while it changes to WAL: members that start at
    # the same time must not make one file together.
    real = SystemDisk.write_once

    def overtaken(disk: SystemDisk, path: Path, data: bytes) -> None:
        monkeypatch.setattr(SystemDisk, "write_once", real)
        _engine(folder).journal.append(1, [ENTRY])
        real(disk, path, data)

    monkeypatch.setattr(SystemDisk, "write_once", overtaken)
    assert list(_engine(folder).journal.entries("run", 0)) == [ENTRY]
    assert SystemDisk.write_once is real


def test_power_lost_while_the_journal_is_made_leaves_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise PowerLost

    monkeypatch.setattr(SystemDisk, "write_once", lost)
    with pytest.raises(PowerLost):
        _engine(folder)
    assert not (folder / "journal.sqlite").exists()
    monkeypatch.undo()
    _engine(folder).journal.append(1, [ENTRY])


def test_making_the_journal_leaves_nothing_else(folder: Path) -> None:
    _engine(folder)
    names = {p.name for p in folder.iterdir()}
    assert names <= {f"journal.sqlite{end}" for end in ("", "-wal", "-shm")}


def test_empty_file_is_no_journal(folder: Path) -> None:
    folder.mkdir()
    (folder / "journal.sqlite").touch()
    with pytest.raises(ConfigurationError, match="format 0"):
        _engine(folder)


def test_folder_in_the_place_of_the_journal_is_a_storage_error(folder: Path) -> None:
    (folder / "journal.sqlite").mkdir(parents=True)
    with pytest.raises(StorageError, match="could not make"):
        _engine(folder)


def test_journal_of_a_later_version_is_refused(folder: Path) -> None:
    _engine(folder)
    connection = sqlite3.connect(folder / "journal.sqlite")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigurationError, match=r"format 2, .* knows 1: upgrade"):
        _engine(folder)


def test_file_that_is_no_database_is_a_storage_error(folder: Path) -> None:
    folder.mkdir()
    (folder / "journal.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(StorageError, match="could not make"):
        _engine(folder)


def test_acquisition_raises_the_term_every_write_is_compared_with(
    folder: Path,
) -> None:
    lease = _engine(folder).leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    assert _ask(folder, "SELECT term FROM term") == lease.term


def test_term_of_the_file_is_a_floor(folder: Path) -> None:
    # A journal restored from an older copy cannot hand out a term that led before.
    engine = _engine(folder)
    for _ in range(3):
        lease = engine.leases.acquire("agg-1", "a", 3.0)
        assert lease is not None
        engine.leases.release(lease)
    plug.Database(folder / "journal.sqlite").connection().execute(
        "UPDATE term SET term = 0"
    )
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    assert lease.term == 4


def test_old_term_files_are_removed(folder: Path) -> None:
    engine = _engine(folder)
    for _ in range(6):
        lease = engine.leases.acquire("agg-1", "a", 3.0)
        assert lease is not None
        engine.leases.release(lease)
    assert sorted(p.name for p in (folder / "terms").iterdir()) == [
        f"{5:016d}",
        f"{6:016d}",
    ]


def test_term_file_that_is_no_lease_is_a_storage_error(folder: Path) -> None:
    engine = _engine(folder)
    (folder / "terms").mkdir()
    (folder / "terms" / f"{1:016d}").write_bytes(b"{}")
    with pytest.raises(StorageError, match="is not a lease"):
        engine.leases.acquire("agg-1", "a", 3.0)
    with pytest.raises(StorageError, match="is not a lease"):
        engine.leases.read()


def test_failed_acquisition_holds_nothing(folder: Path) -> None:
    engine = _engine(folder)
    writer = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    writer.execute("DROP TABLE term")
    with pytest.raises(StorageError, match="could not read the term"):
        engine.leases.acquire("agg-1", "a", 3.0)
    writer.close()
    assert engine.leases.read() is None


def test_lock_that_cannot_be_asked_is_no_free_lease(folder: Path) -> None:
    engine = _engine(folder)
    (folder / "lease.lock").mkdir()
    with pytest.raises(StorageError):
        engine.leases.read()
    with pytest.raises(StorageError):
        engine.leases.acquire("agg-1", "a", 3.0)


def test_forked_child_neither_holds_nor_renews(folder: Path) -> None:
    engine = _engine(folder)
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if engine.leases.renew(lease) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert engine.leases.renew(lease) == lease


def test_writer_that_blocks_is_waited_for_within_bounds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plug, "_BUSY_SECONDS", 0.05)
    engine = _engine(folder)
    writer = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked") as failed:
        engine.journal.append(1, [ENTRY])
    assert not isinstance(failed.value, OutcomeUnknown)
    writer.execute("ROLLBACK")
    writer.close()
    engine.journal.append(1, [ENTRY])


def test_refused_write_leaves_no_open_transaction(folder: Path) -> None:
    engine = _engine(folder)
    engine.journal.append(1, [ENTRY])
    for _ in range(2):
        with pytest.raises(Conflict):
            engine.journal.append(1, [replace(ENTRY, operation="op-2")])
    engine.journal.append(1, [replace(ENTRY, round=2, operation="op-3")])


def test_full_database_is_a_storage_error_and_heals(folder: Path) -> None:
    engine = _engine(folder)
    connection = engine.journal._database.connection()  # type: ignore[attr-defined]
    connection.execute("PRAGMA max_page_count = 12")
    big = replace(ENTRY, detail=b'"' + b"x" * 200_000 + b'"')
    with pytest.raises(StorageError, match=r"full: .*sqlite \(\d+ are free there\)"):
        engine.journal.append(1, [big])
    connection.execute("PRAGMA max_page_count = 1000000")
    engine.journal.append(1, [ENTRY])
    assert list(engine.journal.entries("run", 0)) == [ENTRY]


def test_commit_that_fails_is_an_unknown_outcome_and_leaves_no_transaction(
    folder: Path,
) -> None:
    engine = _engine(folder)
    connection = engine.journal._database.connection()  # type: ignore[attr-defined]
    # A deferred foreign key is checked by COMMIT, so that COMMIT is what fails.
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(
        "CREATE TABLE child (x REFERENCES head (run) DEFERRABLE INITIALLY DEFERRED)"
    )
    connection.execute(
        "CREATE TRIGGER t AFTER INSERT ON journal WHEN NEW.round = 9 "
        "BEGIN INSERT INTO child VALUES ('no such run'); END"
    )
    with pytest.raises(OutcomeUnknown, match="commit"):
        engine.journal.append(1, [replace(ENTRY, round=9)])
    engine.journal.append(1, [ENTRY])
    assert list(engine.journal.entries("run", 0)) == [ENTRY]


def test_detail_over_one_mebibyte_is_refused(folder: Path) -> None:
    engine = _engine(folder)
    with pytest.raises(StorageError, match="at most 1048576"):
        engine.journal.append(1, [replace(ENTRY, detail=bytes((1 << 20) + 1))])
    assert list(engine.journal.entries("run", 0)) == []
