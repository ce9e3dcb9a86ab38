"""Lease, journal and head on one machine: flock and SQLite.

The lease is a lock with a heartbeat. It is not in SQLite, because a process stopped
inside a write transaction blocks every other writer; journal and head are, and every
write compares the term in its own transaction (RESILIENCE.md section 5).
"""

import contextlib
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fedsecure.clock import Clock, SystemClock
from fedsecure.disk import Disk, SystemDisk, no_room
from fedsecure.envelope import canonical
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    OutcomeUnknown,
    StaleTerm,
    StorageError,
)
from fedsecure.heartbeat import Heartbeat
from fedsecure.metadata import (
    ENDS,
    Engine,
    Head,
    JournalEntry,
    Lease,
    Step,
    distinct,
    release_entry,
    shown,
    unready,
)

FORMAT = 1
_BUSY_SECONDS = 2.0
_NEVER = float("inf")
_TABLES = """
CREATE TABLE term (id INTEGER PRIMARY KEY CHECK (id = 0), term INTEGER);
INSERT INTO term VALUES (0, 0);
CREATE TABLE journal (
  number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, round INTEGER NOT NULL,
  step TEXT NOT NULL, site TEXT NOT NULL, operation TEXT NOT NULL UNIQUE,
  term INTEGER NOT NULL, detail BLOB NOT NULL, UNIQUE (run, round, step, site));
CREATE TABLE head (
  run TEXT PRIMARY KEY, round INTEGER, sequence INTEGER, manifest BLOB, term INTEGER);
PRAGMA user_version = 1;
"""


class EmbeddedLeases:
    """The lease board of one machine.

    Parameters
    ----------
    folder : Path
        Shared by all aggregators of the machine; not on a network file system.
    database : Database
        Its term is a floor for the next one.
    """

    def __init__(
        self, folder: Path, database: "Database", disk: Disk, clock: Clock
    ) -> None:
        self._terms = folder / "terms"
        self._database = database
        self._disk = disk
        self._heartbeat = Heartbeat(folder, disk, clock)
        self._lease: Lease | None = None
        self._turn = threading.Lock()

    def read(self) -> Lease | None:
        """Return the lease held now; ends a holder whose heartbeat stands still.

        Raises
        ------
        StorageError
            Could not ask; that is not a free lease.
        """
        with self._turn:
            newest = self._newest()
            held = self._heartbeat.watch(_NEVER if newest is None else newest.ttl)
            return newest if held else None

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        """Take the lock, raise the term in file and database, then lead.

        Raises
        ------
        StorageError
            Could not ask, or a term could not be made durable: nobody leads by this.
        """
        with self._turn:
            newest = self._newest()
            if self._heartbeat.held or not self._heartbeat.take():
                self._heartbeat.watch(_NEVER if newest is None else newest.ttl)
                return None
            try:
                self._lease = self._next(holder, address, ttl)
            except BaseException:
                self._heartbeat.free()
                raise
            return self._lease

    def renew(self, lease: Lease) -> Lease | None:
        """Beat; None if this object holds no lock, or leads under another term."""
        with self._turn:
            if not self._heartbeat.held or self._lease != lease:
                return None
            self._heartbeat.beat()
            return lease

    def release(self, lease: Lease) -> None:
        """Give the lock up."""
        with self._turn:
            if self._lease == lease:
                self._lease = None
                self._heartbeat.free()

    def _next(self, holder: str, address: str, ttl: float) -> Lease:
        newest = self._newest()  # again: this time nobody else can raise it
        floor = max(0 if newest is None else newest.term, self._database.term())
        lease = Lease(holder, address, floor + 1, ttl)
        # One file a term, whole or not at all: a torn line would stay for ever.
        self._disk.write_once(self._path(lease.term), canonical(asdict(lease)))
        for name in self._disk.listdir(self._terms)[:-2]:
            self._disk.delete(self._terms / name)
        self._database.raise_term(lease.term)
        return lease

    def _newest(self) -> Lease | None:
        names = self._disk.listdir(self._terms)
        if not names:
            return None
        path = self._terms / names[-1]
        try:
            lease = Lease(**json.loads(self._disk.read(path, 1 << 16)))
        except (ValueError, TypeError) as bad:
            raise StorageError(f"{path} is not a lease") from bad
        if path != self._path(lease.term):
            raise StorageError(f"{path} is of term {lease.term}")
        return lease

    def _path(self, term: int) -> Path:
        return self._terms / f"{term:016d}"


class _Connection(sqlite3.Connection):
    """Closed when its thread or its database is gone; Python 3.13 wants it said."""

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it was never opened
            self.close()


class Database:
    """The SQLite file of journal, head and term; one connection a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        with _asked(f"make {path}", path):
            if not path.exists():
                _make(path)
            connection = self.connection()
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found != FORMAT:
            raise ConfigurationError(
                f"{path} is of format {found}, this version knows {FORMAT}: upgrade "
                "this aggregator; another folder is for another run only"
            )

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection: WAL, synchronous=FULL."""
        found = getattr(self._local, "connection", None)
        if isinstance(found, sqlite3.Connection):
            return found
        made = sqlite3.connect(
            self._path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # one thread uses it, any may be the last
            factory=_Connection,
        )
        made.execute("PRAGMA synchronous=FULL")
        made.execute("PRAGMA secure_delete=ON")  # a KEY row is overwritten
        self._local.connection = made
        return made

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction; all or nothing, durable on leaving.

        Raises
        ------
        OutcomeUnknown
            The commit itself failed: read back before going on.
        StorageError
            Nothing was written.
        """
        with _asked("begin a transaction"):
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
        try:
            with _asked("write", self._path):
                yield connection
        except BaseException:
            _roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as failed:
            _roll_back(connection)
            raise OutcomeUnknown(f"commit to {self._path}: {failed}") from failed

    def term(self) -> int:
        """Return the highest term that ever led."""
        with _asked("read the term"):
            row = self.connection().execute("SELECT term FROM term").fetchone()
        return int(row[0])

    def raise_term(self, term: int) -> None:
        """Make `term` the one every write is compared with; durable on return."""
        with self.writing() as connection:
            connection.execute("UPDATE term SET term = ? WHERE term < ?", (term, term))


class EmbeddedJournal:
    """Journal and head in SQLite; see `Journal` for the promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        """Write all entries or none, if `term` is the highest."""
        kept = distinct(entries)
        with self._database.writing() as connection:
            _compare_term(connection, term)
            for entry in kept:
                _insert(connection, term, entry)
                if entry.step in ENDS:
                    connection.execute(
                        "DELETE FROM journal WHERE run = ? AND round = ? AND step = ?",
                        (entry.run, entry.round, str(Step.KEY)),
                    )

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        """Yield the run's entries in the order written."""
        with _asked("read the journal"):
            rows = self._database.connection().execute(
                "SELECT run, round, step, site, operation, detail FROM journal "
                "WHERE run = ? AND round >= ? ORDER BY number",
                (run, first_round),
            )
            found = rows.fetchall()
        for run_, number, step, site, operation, detail in found:
            yield JournalEntry(run_, number, Step(step), site, operation, bytes(detail))

    def head(self, run: str) -> Head | None:
        """Return the run's head."""
        with _asked("read the head"):
            return _head(self._database.connection(), run)

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        """Move the head and write its RELEASE entry, if nobody else did."""
        entry = release_entry(new)
        with self._database.writing() as connection:
            _compare_term(connection, term)
            found = _head(connection, new.run)
            if found == new:
                return
            if found != expected:
                raise Conflict(
                    f"head of {new.run} is {shown(found)}, expected {shown(expected)}"
                )
            rows = connection.execute(
                "SELECT step, detail FROM journal "
                "WHERE run = ? AND round = ? AND site = ''",
                (new.run, new.round),
            )
            bar = unready(new, dict(rows), closed)
            if bar:
                raise Conflict(bar)
            connection.execute(
                "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?)",
                (new.run, new.round, new.sequence, new.manifest, new.term),
            )
            _insert(connection, term, entry)


def create(settings: Mapping[str, object]) -> Engine:
    """Return the engine in folder ``settings["path"]``.

    Raises
    ------
    ConfigurationError
        No path, or a network file system: flock does not fence there.
    """
    path = settings.get("path")
    if not isinstance(path, str | Path) or not Path(path).is_absolute():
        raise ConfigurationError(f"lease path={path!r}, must be an absolute folder")
    folder = Path(path)
    _refuse_network(folder)
    database = Database(folder / "journal.sqlite")
    leases = EmbeddedLeases(folder, database, SystemDisk(), SystemClock())
    return Engine(leases, EmbeddedJournal(database))


def _make(path: Path) -> None:
    # Members start at the same time, and SQLite does not wait for a lock while it
    # changes to WAL: the file is made aside and linked, whole, by the first of them.
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as aside:
        made = sqlite3.connect(Path(aside, "new"), isolation_level=None)
        try:
            made.execute("PRAGMA journal_mode=WAL")
            made.executescript(_TABLES)
        finally:
            made.close()
        data = Path(aside, "new").read_bytes()
    with contextlib.suppress(AlreadyExists):
        SystemDisk().write_once(path, data)


def _compare_term(connection: sqlite3.Connection, term: int) -> None:
    highest = int(connection.execute("SELECT term FROM term").fetchone()[0])
    if term < highest:
        raise StaleTerm(f"term {term} may not write: term {highest} leads")
    if term > highest:
        connection.execute("UPDATE term SET term = ?", (term,))


def _insert(connection: sqlite3.Connection, term: int, entry: JournalEntry) -> None:
    row = (entry.run, entry.round, str(entry.step), entry.site, entry.detail)
    known = connection.execute(
        "SELECT run, round, step, site, detail FROM journal WHERE operation = ?",
        (entry.operation,),
    ).fetchone()
    if known == row:
        return
    try:
        connection.execute(
            "INSERT INTO journal (run, round, step, site, detail, operation, term) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*row, entry.operation, term),
        )
    except sqlite3.IntegrityError as twice:
        raise Conflict(
            f"{entry.step} of round {entry.round} {entry.site} was written before, or "
            f"operation {entry.operation} for something else"
        ) from twice


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite may have rolled back by itself, for example when the disk is full.
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _head(connection: sqlite3.Connection, run: str) -> Head | None:
    row = connection.execute(
        "SELECT run, round, sequence, manifest, term FROM head WHERE run = ?", (run,)
    ).fetchone()
    if row is None:
        return None
    return Head(row[0], row[1], row[2], bytes(row[3]), row[4])


def _refuse_network(folder: Path) -> None:
    # f_type of statfs(2) is not in os.statvfs; /proc/mounts names the file system.
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    fields = [line.split(" ") for line in mounts]
    inside = [f for f in fields if folder.resolve().is_relative_to(f[1])]
    kind = max(inside, key=lambda f: len(f[1]))[2] if inside else ""
    if kind.startswith(("nfs", "cifs", "smb", "9p", "fuse.sshfs")):
        raise ConfigurationError(
            f"lease path={folder} is on {kind}: file locks do not fence there; use a "
            "local disk"
        )


@contextlib.contextmanager
def _asked(what: str, path: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as failed:
        full = getattr(failed, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        more = f": {path}{no_room(path)}" if path and full else ""
        raise StorageError(f"could not {what}: {failed}{more}") from failed
