"""A PostgreSQL server as this house uses one: every answer comes in bounded time.

A session is checked when it is opened (primary, fsync, durable commits), bounded by the
server (`statement_timeout`) and by ourselves, since a server that was stopped bounds
nothing. A lost connection is never hidden: what was asked fails, the next question
connects again. Passwords come from files that only their owner can read.
"""

import contextlib
import math
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    OutcomeUnknown,
    StorageError,
)
from fedsecure.trial import check_private, is_here

OLDEST = 13
_GRACE = 0.25  # seconds our own bound waits longer than the server's
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_VERIFIED = ("verify-ca", "verify-full")
_DURABLE = ("on", "remote_apply")
_ENDED = ("FATAL", "PANIC")
_FULL = (
    ": free space on the disk of that server or take a larger one, and start the "
    "server if it ended; nothing was written half, and the run goes on where it stopped"
)
_STANDING = """
SELECT pg_is_in_recovery(), current_setting('fsync'),
  current_setting('synchronous_commit'), current_setting('transaction_read_only'),
  current_setting('statement_timeout'), current_setting('server_version_num')::int
"""


class Unfit(StorageError):
    """The server answers, and must not hold a lease: standby, fsync=off, too old."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is and how it is asked; holds no password.

    Attributes
    ----------
    conninfo : str
        For libpq.
    shown : str
        For messages.
    timeout : float
        Bound on one statement; seconds.
    insecure_plain : bool
        Whether a server elsewhere may be asked without verified TLS.
    """

    conninfo: str
    shown: str
    timeout: float
    insecure_plain: bool


def find_server(
    url: str,
    schema: str,
    *,
    timeout: float,
    passfile: Path | None = None,
    insecure_plain: bool = False,
) -> Server:
    """Return a checked server.

    Parameters
    ----------
    url : str
        ``postgresql://user@host:port/database?sslmode=verify-full&sslrootcert=...``
    schema : str
        Of our tables; the only one that is looked at.
    timeout : float
        Bound on one statement; seconds.
    passfile : Path, optional
        Like ``~/.pgpass``; mode 0600.

    Raises
    ------
    ConfigurationError
        A password where others can read it, no TLS to another machine, no such schema
        name; the text of `url` is never repeated.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ConfigurationError(
            f"schema={schema!r}, must be at most 63 of a-z, 0-9 and _"
        )
    try:
        parts = {k: str(v) for k, v in conninfo_to_dict(url).items()}
    except psycopg.Error:  # its text may repeat a password
        raise ConfigurationError(
            "the url is not one that libpq reads, must be postgresql://user@host:port/"
            "database: mend `url` of `engine` in aggregator.json"
        ) from None
    _check_secrets(parts, passfile)
    if "service" not in parts and not insecure_plain:
        _check_hosts(_hosts(parts), parts.get("sslmode", os.getenv("PGSSLMODE", "")))
    shown = parts.get("service") or (
        f"{parts.get('host', 'local socket')}:{parts.get('port', '5432')}"
        f"/{parts.get('dbname', '')}"
    )
    conninfo = _conninfo(parts, schema, timeout, passfile)
    return Server(conninfo, f"postgresql at {shown}", timeout, insecure_plain)


class _Session(psycopg.Connection[TupleRow]):
    """One connection whose every wait ends."""

    bound = 0.0
    maker = 0

    def wait(
        self, gen: Any, interval: float = 0.1, timeout: float | None = None
    ) -> Any:
        return super().wait(gen, interval, timeout or self.bound or None)

    def __del__(self, _: Any = None, /) -> None:
        # A forked child must not say goodbye for its parent.
        if self.maker == os.getpid():
            with contextlib.suppress(psycopg.Error):
                self.close()


class Sessions:
    """Connections to one server: as many as there are askers at one time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._idle: deque[_Session] = deque()
        self._maker = os.getpid()
        self._strangers: list[_Session] = []

    def ask(
        self,
        what: str,
        statement: LiteralString,
        given: Mapping[str, object] | None = None,
        *,
        writes: bool = False,
    ) -> Sequence[TupleRow]:
        """Run one statement, a transaction of its own; return its rows.

        One statement, so that a client which is stopped holds no transaction open.

        Parameters
        ----------
        what : str
            What is done; for messages.
        writes : bool
            Whether a lost answer leaves it open what the server now holds.

        Raises
        ------
        AlreadyExists
            A unique key was there; nothing was written.
        OutcomeUnknown
            `writes`, and the answer did not come.
        StorageError
            Nothing was written.
        """
        session = self._take()
        try:
            cursor = session.execute(statement, given)
            rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error as failed:
            broken = session.closed or _ended(failed)
            self._leave(session, broken=broken)
            raise self._named(what, failed, unknown=writes and broken) from failed
        except BaseException:
            session.close()
            raise
        self._idle.append(session)
        return rows

    def close(self) -> None:
        """Close what is idle; the next question connects again."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> _Session:
        if self._maker != os.getpid():
            self._strangers += self._idle
            self._idle, self._maker = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _leave(self, session: _Session, *, broken: bool) -> None:
        if broken:
            session.close()
            self.close()  # what one has lost the others have, as a rule
        else:
            self._idle.append(session)

    def _open(self) -> _Session:
        server = self.server
        try:
            session = _Session.connect(server.conninfo, autocommit=True)
        except psycopg.Error as failed:
            raise self._named("connect", failed, unknown=False) from failed
        session.maker, session.bound = os.getpid(), server.timeout + _GRACE
        try:
            self._check(session)
        except psycopg.Error as failed:
            session.close()
            raise self._named("ask for its settings", failed, unknown=False) from failed
        except BaseException:
            session.close()
            raise
        return session

    def _check(self, session: _Session) -> None:
        if not self.server.insecure_plain:
            used = session.info.get_parameters()
            try:
                _check_hosts([session.info.hostaddr], used.get("sslmode", ""))
            except ConfigurationError as plain:
                raise Unfit(str(plain)) from plain
        row = session.execute(_STANDING).fetchone()
        problem = _problem(*(row or (True, "", "", "on", "0", 0)))
        if problem:
            raise Unfit(f"{self.server.shown} {problem}")

    def _named(self, what: str, failed: psycopg.Error, *, unknown: bool) -> Exception:
        said = failed.diag.message_primary or str(failed).strip() or "no answer"
        reason = " ".join(said.split())
        full = _FULL if isinstance(failed, psycopg.errors.DiskFull) else ""
        text = f"{self.server.shown}: could not {what}: {reason}{full}"
        if isinstance(failed, psycopg.errors.UniqueViolation):
            return AlreadyExists(text)
        return OutcomeUnknown(text) if unknown else StorageError(text)


def _ended(failed: psycopg.Error) -> bool:
    """Return whether a session ended with an error: what it wrote may stand.

    A server whose disk of the log is full says so, and dies of it (PANIC); a commit
    that it had written by then is found at its next start.
    """
    severity = failed.diag.severity_nonlocalized
    return not isinstance(failed.sqlstate, str) or severity in _ENDED


def _problem(
    standby: object, fsync: str, commit: str, read_only: str, bound: str, version: int
) -> str:
    found = {
        "is a hot standby: name the primary": bool(standby),
        "is read only: name the primary": read_only == "on",
        f"has fsync={fsync}, must be on: a power cut would lose terms": fsync != "on",
        f"has synchronous_commit={commit}, must be on, and no pooler between": (
            commit not in _DURABLE
        ),
        "drops statement_timeout: connect to it directly, not through a pooler": (
            bound == "0"
        ),
        f"is version {version // 10_000}, must be {OLDEST} or later": (
            version < OLDEST * 10_000
        ),
    }
    return next((problem for problem, there in found.items() if there), "")


def _conninfo(
    parts: Mapping[str, str], schema: str, timeout: float, passfile: Path | None
) -> str:
    bound = math.ceil(timeout * 1000)
    options = (
        f"{parts.get('options', '')} -c search_path={schema} -c synchronous_commit=on "
        f"-c statement_timeout={bound} -c lock_timeout={bound} "
        f"-c idle_in_transaction_session_timeout={bound}"
    )
    ours: dict[str, Any] = {
        "options": options.strip(),
        "connect_timeout": max(2, math.ceil(timeout)),  # psycopg takes no less
        "tcp_user_timeout": bound,
        "keepalives_idle": 5,
        "application_name": "fedsecure",
    }
    if passfile is not None:
        ours["passfile"] = str(passfile)
    if len(_hosts(parts)) > 1:
        ours["target_session_attrs"] = "primary"
    return make_conninfo("", **{**parts, **ours})


def _check_secrets(parts: Mapping[str, str], passfile: Path | None) -> None:
    if "password" in parts or "sslpassword" in parts or "PGPASSWORD" in os.environ:
        raise ConfigurationError(
            "a database password is in the url or in PGPASSWORD, where others can read "
            "it: put it into a file of mode 0600 and name that as passfile"
        )
    home = Path.home()
    named = passfile or parts.get("passfile") or os.getenv("PGPASSFILE")
    if named is not None:
        check_private(Path(named))
    elif (home / ".pgpass").exists():
        check_private(home / ".pgpass")
    if "service" in parts or "PGSERVICE" in os.environ:
        services = Path(os.getenv("PGSERVICEFILE") or home / ".pg_service.conf")
        if services.exists():
            check_private(services)


def _hosts(parts: Mapping[str, str]) -> list[str]:
    named = parts.get("hostaddr") or parts.get("host") or os.getenv("PGHOST")
    return (named or "").split(",")


def _check_hosts(hosts: Sequence[str], sslmode: str) -> None:
    away = [host for host in hosts if not is_here(host)]
    if away and sslmode not in _VERIFIED:
        raise ConfigurationError(
            f"sslmode={sslmode or 'prefer'} to {away[0]}, which is another machine: "
            "must be verify-full or verify-ca, with sslrootcert"
        )
