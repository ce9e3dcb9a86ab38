"""Lease, journal and head on one machine: flock and SQLite.

The lease is a flock, so the kernel frees it the moment its holder dies. A holder that
hangs keeps it: watchers see its heartbeat stand still on their own monotonic clock and
SIGKILL it through a pidfd. The lease is not in SQLite, because a process stopped inside
a write transaction blocks every other writer; journal and head are, and every write
compares the term in its own transaction (RESILIENCE.md section 5).
"""

import contextlib
import os
import select
import signal
import sqlite3
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedsecure.clock import Clock, SystemClock
from fedsecure.disk import Disk, Lock, SystemDisk
from fedsecure.envelope import canonical
from fedsecure.errors import (
    ConfigurationError,
    Conflict,
    NotFound,
    OutcomeUnknown,
    StaleTerm,
    StorageError,
)
from fedsecure.metadata import Engine, Head, JournalEntry, Lease, Step

MAX_DETAIL_BYTES = 1 << 20
_BUSY_SECONDS = 2.0
_BEAT = struct.Struct("<qqQ")  # pid, its start time in clock ticks, heartbeat counter

_TABLES = """
CREATE TABLE IF NOT EXISTS term (id INTEGER PRIMARY KEY CHECK (id = 0), term INTEGER);
INSERT OR IGNORE INTO term VALUES (0, 0);
CREATE TABLE IF NOT EXISTS journal (
  number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, round INTEGER NOT NULL,
  step TEXT NOT NULL, site TEXT NOT NULL, operation TEXT NOT NULL UNIQUE,
  term INTEGER NOT NULL, detail BLOB NOT NULL, UNIQUE (run, round, step, site));
CREATE TABLE IF NOT EXISTS head (
  run TEXT PRIMARY KEY, round INTEGER, sequence INTEGER, manifest BLOB, term INTEGER);
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
        self._folder = folder
        self._database = database
        self._disk = disk
        self._clock = clock
        self._lock: Lock | None = None
        self._beats = 0
        self._seen: tuple[bytes, float] = (b"", 0.0)

    def read(self) -> Lease | None:
        """Return the lease held now; ends a holder whose heartbeat stands still."""
        if self._lock is not None:
            return self._lease_file()
        probe = self._try_lock()
        if probe is not None:
            probe.release()
            return None
        lease = self._lease_file()
        if lease is not None:
            self._watch(lease)
        return lease

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        """Take the flock, raise the term in file and database, then lead."""
        lock = self._try_lock()
        if lock is None:
            self.read()
            return None
        try:
            before = self._lease_file()
            floor = max(0 if before is None else before.term, self._database.term())
            lease = Lease(holder, address, floor + 1, ttl)
            self._beat()
            self._write(lease)
            self._database.raise_term(lease.term)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        return lease

    def renew(self, lease: Lease) -> Lease | None:
        """Beat; None if the lock is not held by this object, or for another term."""
        current = self._lease_file()
        if self._lock is None or current is None or current.term != lease.term:
            return None
        self._beat()
        return lease

    def release(self, lease: Lease) -> None:
        """Give the flock up."""
        current = self._lease_file()
        held = current is not None and current.term == lease.term
        if self._lock is not None and held:
            self._lock.release()
            self._lock = None

    def _try_lock(self) -> Lock | None:
        try:
            return self._disk.lock(self._folder / "lease.lock")
        except StorageError:
            return None

    def _watch(self, lease: Lease) -> None:
        beat = self._read("heartbeat")
        now = self._clock.now()
        if beat != self._seen[0] or not beat:
            self._seen = (beat, now)
        elif now - self._seen[1] > lease.ttl and len(beat) == _BEAT.size:
            pid, started, _ = _BEAT.unpack(beat)
            end_process(pid, started)
            self._seen = (b"", now)

    def _beat(self) -> None:
        self._beats += 1
        pid = os.getpid()
        data = _BEAT.pack(pid, started_at(pid), self._beats)
        # Not durable on purpose: a heartbeat of a machine that went down says nothing.
        temporary = self._folder / f".heartbeat-{pid}-{id(self)}"
        with _asked(f"write {temporary}"):
            temporary.write_bytes(data)
            temporary.replace(self._folder / "heartbeat")

    def _lease_file(self) -> Lease | None:
        parts = self._read("lease").decode(errors="replace").splitlines()
        if not parts:
            return None
        holder, address, term, ttl = parts[-1].split("\t")
        return Lease(holder, address, int(term), float(ttl))

    def _write(self, lease: Lease) -> None:
        line = f"{lease.holder}\t{lease.address}\t{lease.term}\t{lease.ttl}\n"
        self._disk.append(self._folder / "lease", line.encode())

    def _read(self, name: str) -> bytes:
        try:
            return self._disk.read(self._folder / name, 1 << 24)
        except NotFound:
            return b""


class Database:
    """The SQLite file of journal, head and term; one connection a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        with _asked(f"make {path}"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.connection().executescript(_TABLES)

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection: WAL, synchronous=FULL."""
        found = getattr(self._local, "connection", None)
        if isinstance(found, sqlite3.Connection):
            return found
        made = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("PRAGMA synchronous=FULL")
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
        connection = self.connection()
        with _asked("begin a transaction"):
            connection.execute("BEGIN IMMEDIATE")
        try:
            with _asked("write"):
                yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as failed:
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
        with self._database.writing() as connection:
            _compare_term(connection, term)
            for entry in entries:
                _insert(connection, term, entry)

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

    def advance(self, term: int, expected: Head | None, new: Head) -> None:
        """Move the head and write its RELEASE entry, if nobody else did."""
        detail = canonical({"manifest": new.manifest.hex(), "sequence": new.sequence})
        operation = f"release-{new.run}-{new.round}-{new.manifest.hex()}"
        entry = JournalEntry(new.run, new.round, Step.RELEASE, "", operation, detail)
        with self._database.writing() as connection:
            _compare_term(connection, term)
            found = _head(connection, new.run)
            if found == new:
                return
            if found != expected:
                raise Conflict(
                    f"head of {new.run} is {_show(found)}, expected {_show(expected)}"
                )
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
    database = Database(folder / "journal.sqlite")
    _refuse_network(folder)
    leases = EmbeddedLeases(folder, database, SystemDisk(), SystemClock())
    return Engine(leases, EmbeddedJournal(database))


def started_at(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(stat.rsplit(")", 1)[1].split()[19])


def end_process(pid: int, started: int) -> bool:
    """SIGKILL the process that has this id and start time; wait until it is gone.

    Never this process itself, and never one that only took over the number.
    """
    if pid == os.getpid() or not started:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if started_at(pid) != started:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], 1.0)
    finally:
        os.close(descriptor)
    return True


def _compare_term(connection: sqlite3.Connection, term: int) -> None:
    highest = int(connection.execute("SELECT term FROM term").fetchone()[0])
    if term < highest:
        raise StaleTerm(f"term {term} may not write: term {highest} leads")
    connection.execute("UPDATE term SET term = ?", (term,))


def _insert(connection: sqlite3.Connection, term: int, entry: JournalEntry) -> None:
    if len(entry.detail) > MAX_DETAIL_BYTES:
        raise StorageError(
            f"journal detail of {len(entry.detail)} bytes, at most {MAX_DETAIL_BYTES}"
        )
    known = connection.execute(
        "SELECT 1 FROM journal WHERE operation = ?", (entry.operation,)
    ).fetchone()
    if known:
        return
    try:
        connection.execute(
            "INSERT INTO journal (run, round, step, site, operation, term, detail) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entry.run,
                entry.round,
                str(entry.step),
                entry.site,
                entry.operation,
                term,
                entry.detail,
            ),
        )
    except sqlite3.IntegrityError as twice:
        raise Conflict(
            f"{entry.step} of round {entry.round} {entry.site} was written before"
        ) from twice


def _head(connection: sqlite3.Connection, run: str) -> Head | None:
    row = connection.execute(
        "SELECT run, round, sequence, manifest, term FROM head WHERE run = ?", (run,)
    ).fetchone()
    if row is None:
        return None
    return Head(row[0], row[1], row[2], bytes(row[3]), row[4])


def _show(head: Head | None) -> str:
    return "none" if head is None else f"round {head.round} (term {head.term})"


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
def _asked(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as failed:
        raise StorageError(f"could not {what}: {failed}") from failed
