"""The socket for leadership and the journal: one engine, two Protocols.

Lease, journal and head live in one engine, so the transaction that writes also compares
the term: holding a lease is never enough (Jepsen on etcd 3.4.3: locks are unsafe for
mutual exclusion).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fedsecure.envelope import canonical
from fedsecure.errors import Conflict, StorageError

MAX_DETAIL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Lease:
    """Leadership as its engine sees it.

    Attributes
    ----------
    holder : str
        Name of the aggregator.
    address : str
        Where it can be reached; for people and `/leader`.
    term : int
        Fencing number; rises with every acquisition, also by the same holder.
    ttl : float
        Seconds after which a silent holder is dead to the others.
    """

    holder: str
    address: str
    term: int
    ttl: float


class LeaseBoard(Protocol):
    """Who leads. None means somebody else; `StorageError` means could not ask."""

    def read(self) -> Lease | None:
        """Return the lease that is held now, or None if nobody holds it."""
        ...

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        """Take the lease with term + 1, atomically; None if somebody else holds it."""
        ...

    def renew(self, lease: Lease) -> Lease | None:
        """Prolong the lease; None if it is lost for good."""
        ...

    def release(self, lease: Lease) -> None:
        """Give the lease up; the next `acquire` succeeds at once. Idempotent."""
        ...


class Step(StrEnum):
    """The durable steps of a round, and BEGIN, once a run (RESILIENCE D1 to D5)."""

    BEGIN = "begin"
    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"
    SKIP = "skip"
    RELEASE = "release"
    PUBLISH = "publish"
    KEY = "key"


ENDS = (Step.SKIP, Step.PUBLISH)
"""The steps that take their round's KEY row away, in their own transaction."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One durable step.

    Attributes
    ----------
    run : str
    round : int
        From 1; 0 for BEGIN.
    step : Step
    site : str
        The site of an UPDATE; "" otherwise.
    operation : str
        Id of the write; a second append of the same operation is a no-op.
    detail : bytes
        Canonical JSON, at most 1 MiB.
    """

    run: str
    round: int
    step: Step
    site: str
    operation: str
    detail: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Number and digest of the last released manifest of a run."""

    run: str
    round: int
    sequence: int
    manifest: bytes
    term: int


class Journal(Protocol):
    """The shared diary of rounds; every write compares the term in its transaction."""

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        """Write all entries or none; durable on return.

        A SKIP or PUBLISH entry takes the KEY row of its round away, in the same
        transaction: what was sealed under that key is erased with it.

        Raises
        ------
        StaleTerm
            A higher term was acquired.
        Conflict
            Another operation wrote the same (run, round, step, site).
        StorageError
            Not written.
        """
        ...

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        """Yield the run's entries from `first_round` on, in the order written."""
        ...

    def head(self, run: str) -> Head | None:
        """Return the run's head; None before its first release."""
        ...

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        """Move the head and write its RELEASE entry, in one transaction.

        The RELEASE entry's detail is canonical JSON {"manifest": hex, "sequence": n}.

        Parameters
        ----------
        closed : bytes
            What the round's CLOSE row must say, byte for byte: nothing is released but
            the sum over the closed set (RESILIENCE D4). Empty only where the round was
            never opened, in an engine that was made anew from the stores.

        Raises
        ------
        StaleTerm
            A higher term was acquired.
        Conflict
            The head is not `expected`; or the round was released or skipped before, is
            not closed, or over another set.
        """
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """What a plug's `create` returns: the two Protocols over one engine."""

    leases: LeaseBoard
    journal: Journal


def release_entry(head: Head) -> JournalEntry:
    """Return the RELEASE entry that `Journal.advance` writes with a head."""
    detail = canonical({"manifest": head.manifest.hex(), "sequence": head.sequence})
    operation = f"release-{head.run}-{head.round}-{head.manifest.hex()}"
    return JournalEntry(head.run, head.round, Step.RELEASE, "", operation, detail)


def unready(head: Head, rows: Mapping[str, bytes], closed: bytes) -> str:
    """Return why a round's head may not move; "" if it may.

    Parameters
    ----------
    rows : mapping of str to bytes
        Step -> detail, of the round's rows without a site.
    closed : bytes
        See `Journal.advance`.
    """
    where = f"round {head.round} of {head.run}"
    if Step.RELEASE in rows:
        return f"{where} was released before"
    if Step.SKIP in rows:
        return f"{where} was skipped"
    if rows.get(Step.CLOSE, b"") != closed or (Step.OPEN in rows and not closed):
        return f"{where} is not closed over the set that would be released"
    return ""


def distinct(entries: Sequence[JournalEntry]) -> list[JournalEntry]:
    """Return the entries of one append in order, exact repeats left out.

    Raises
    ------
    Conflict
        Two entries are one step, or one operation is two entries.
    StorageError
        A detail is larger than 1 MiB.
    """
    kept = list(dict.fromkeys(entries))
    places = {(e.run, e.round, e.step, e.site) for e in kept}
    if len(places) < len(kept) or len({e.operation for e in kept}) < len(kept):
        raise Conflict("two entries of one append are the same step or operation")
    largest = max((len(e.detail) for e in kept), default=0)
    if largest > MAX_DETAIL_BYTES:
        raise StorageError(
            f"journal detail of {largest} bytes, at most {MAX_DETAIL_BYTES}"
        )
    return kept


def shown(head: Head | None) -> str:
    """Return a head for a message."""
    return "none" if head is None else f"round {head.round} (term {head.term})"
