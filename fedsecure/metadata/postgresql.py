"""Lease, journal and head in a PostgreSQL database: fence and data in one transaction.

One row holds the lease and the highest term. Every write updates that row if its own
term is not below, in the same statement that writes: an acquisition and a write wait
for each other, and whoever comes second sees what the first did. Statements are single,
so an aggregator that is stopped holds no transaction open. When a lease ends is judged
by the server's clock alone (RESILIENCE.md section 5).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedsecure import tables
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    StaleTerm,
    StorageError,
)
from fedsecure.metadata import (
    Engine,
    Head,
    JournalEntry,
    Lease,
    Step,
    distinct,
    release_entry,
    shown,
)
from fedsecure.postgres import Sessions, Unfit, find_server
from fedsecure.trial import check_skew, one_winner, seconds

TIMEOUT = 1.0
MAX_SKEW = 5.0
_PAGE = 64


class PostgresqlLeases:
    """The lease board in one row; see `LeaseBoard` for the promises."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def read(self) -> Lease | None:
        """Return the lease that has not ended on the server's clock."""
        rows = self._sessions.ask("read the lease", tables.READ)
        return Lease(*rows[0]) if rows else None

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        """Take the lease with term + 1, if it has ended.

        Raises
        ------
        OutcomeUnknown
            No answer: nobody leads by it; if it was taken, it ends after `ttl`.
        """
        given = {"holder": holder, "address": address, "ttl": ttl}
        rows = self._sessions.ask(
            "acquire the lease", tables.ACQUIRE, given, writes=True
        )
        return Lease(holder, address, int(rows[0][0]), ttl) if rows else None

    def renew(self, lease: Lease) -> Lease | None:
        """Prolong the lease; None once it has ended, or a higher term was seen."""
        given = {"term": lease.term, "holder": lease.holder}
        rows = self._sessions.ask("renew the lease", tables.RENEW, given, writes=True)
        return lease if rows else None

    def release(self, lease: Lease) -> None:
        """End the lease, if it is the one that is held."""
        given = {"term": lease.term, "holder": lease.holder}
        self._sessions.ask("release the lease", tables.RELEASE, given, writes=True)


class PostgresqlJournal:
    """Journal and head in two tables; see `Journal` for the promises."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        """Write all entries or none, if `term` is the highest.

        Raises
        ------
        OutcomeUnknown
            No answer: append the same entries again, that is no second write.
        """
        given = _columns(term, distinct(entries))
        try:
            self._append(given)
        except AlreadyExists:
            # Somebody wrote it while the statement waited for the row, maybe an
            # earlier try of ours: now it is seen.
            try:
                self._append(given)
            except AlreadyExists as twice:
                raise Conflict(
                    "a step of this append was written before by another operation, "
                    f"or its operation for something else: {twice}"
                ) from twice

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        """Yield the run's entries in the order written."""
        given = {"run": run, "first": first_round, "after": 0, "limit": _PAGE}
        while True:
            rows = self._sessions.ask("read the journal", tables.ENTRIES, given)
            yield from (_entry(*row[1:]) for row in rows)
            if len(rows) < _PAGE:
                return
            given["after"] = rows[-1][0]

    def head(self, run: str) -> Head | None:
        """Return the run's head."""
        rows = self._sessions.ask("read the head", tables.HEAD, {"run": run})
        if not rows:
            return None
        run_, number, sequence, manifest, term = rows[0]
        return Head(run_, number, sequence, bytes(manifest), term)

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        """Move the head and write its RELEASE entry, if nobody else did.

        Raises
        ------
        OutcomeUnknown
            No answer: advance to the same head again, that is no second release.
        """
        statement = tables.FIRST_HEAD if expected is None else tables.NEXT_HEAD
        given = {**_heads(term, expected, new), "closed": closed}
        fenced, moved = 1, 0
        # A RELEASE entry that is there without its head is not ours.
        with contextlib.suppress(AlreadyExists):
            rows = self._sessions.ask("move the head", statement, given, writes=True)
            fenced, moved = rows[0]
        if not fenced:
            raise self._stale(term)
        if moved:
            return
        found = self.head(new.run)
        if found != new:
            raise Conflict(
                f"head of {new.run} is {shown(found)}, expected {shown(expected)}, or "
                f"round {new.round} was released or skipped before, or is not closed "
                "over the set that would be released"
            )
        self.append(term, [])  # a repeat under a higher term raises it

    def _append(self, given: Mapping[str, object]) -> None:
        rows = self._sessions.ask("append", tables.APPEND, given, writes=True)
        if not rows[0][0]:
            raise self._stale(given["term"])

    def _stale(self, term: object) -> StaleTerm:
        rows = self._sessions.ask("read the term", "SELECT term FROM lease")
        if not rows:
            return StaleTerm(f"term {term} may not write: the lease row is gone")
        return StaleTerm(f"term {term} may not write: term {rows[0][0]} leads")


def create(settings: Mapping[str, object]) -> Engine:
    """Return the engine in the database at ``settings["url"]``.

    Parameters
    ----------
    settings : Mapping
        ``url``; ``schema`` ("fedsecure"); ``passfile`` (a file of mode 0600);
        ``timeout`` (1 s, of one statement); ``max_skew`` (5 s, between the clocks);
        ``insecure_plain`` (false: TLS to other machines); ``trial`` (true; false for
        whoever only looks).

    Raises
    ------
    ConfigurationError
        A setting cannot be used, the server is a standby or does not fsync, its tables
        are of a later version, or it failed the trial.
    StorageError
        It does not answer.
    """
    schema = str(settings.get("schema") or "fedsecure")
    passfile = settings.get("passfile")
    server = find_server(
        str(settings.get("url") or ""),
        schema,
        timeout=seconds(settings, "timeout", TIMEOUT),
        passfile=None if passfile is None else Path(str(passfile)),
        insecure_plain=settings.get("insecure_plain") is True,
    )
    sessions = Sessions(server)
    try:
        tables.bring_up(sessions, schema)
        max_skew = seconds(settings, "max_skew", MAX_SKEW)
        if settings.get("trial") is not False:
            _try_out(sessions, max_skew)
    except Unfit as unfit:
        raise ConfigurationError(str(unfit)) from unfit
    return Engine(PostgresqlLeases(sessions), PostgresqlJournal(sessions))


def _entry(
    run: str, number: int, step: str, site: str, operation: str, detail: bytes
) -> JournalEntry:
    try:
        return JournalEntry(run, number, Step(step), site, operation, bytes(detail))
    except ValueError as bad:
        raise StorageError(f"operation {operation} is of no known step: {bad}") from bad


def _columns(term: int, entries: Sequence[JournalEntry]) -> dict[str, object]:
    return {
        "term": term,
        "run": [e.run for e in entries],
        "round": [e.round for e in entries],
        "step": [str(e.step) for e in entries],
        "site": [e.site for e in entries],
        "operation": [e.operation for e in entries],
        "detail": [e.detail for e in entries],
    }


def _heads(term: int, expected: Head | None, new: Head) -> dict[str, object]:
    entry = release_entry(new)
    given: dict[str, object] = {
        "term": term,
        "run": new.run,
        "round": new.round,
        "sequence": new.sequence,
        "manifest": new.manifest,
        "new_term": new.term,
        "step": str(entry.step),
        "site": entry.site,
        "operation": entry.operation,
        "detail": entry.detail,
    }
    if expected is not None:
        given |= {
            "old_round": expected.round,
            "old_sequence": expected.sequence,
            "old_manifest": expected.manifest,
            "old_term": expected.term,
        }
    return given


def _try_out(sessions: Sessions, max_skew: float) -> None:
    sessions.ask(
        "clear old trials",
        "DELETE FROM trial WHERE made < clock_timestamp() - interval '1 hour'",
    )

    def claim(key: str) -> bool:
        return bool(sessions.ask("make a key", tables.CLAIM, {"key": key}, writes=True))

    one_winner(sessions.server.shown, claim)
    before = datetime.now(UTC).timestamp()
    (now,) = sessions.ask("read its clock", tables.CLOCK)[0]
    after = datetime.now(UTC).timestamp()
    check_skew(sessions.server.shown, now - (before + after) / 2, max_skew)
    sessions.close()
