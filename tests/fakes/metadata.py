"""Lease, journal and head in dicts: an engine that can be read in one sitting.

Leases end by a clock, as those of a server's engine do.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence

from fedsecure.clock import Clock
from fedsecure.errors import Conflict, StaleTerm, StorageError
from fedsecure.metadata import (
    ENDS,
    Engine,
    Head,
    JournalEntry,
    Lease,
    Step,
    distinct,
    release_entry,
    unready,
)
from tests.fakes.clock import FakeClock


class State:
    """What the server of such an engine would keep."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.turn = threading.RLock()
        self.term = 0
        self.lease: Lease | None = None
        self.ends = 0.0
        self.entries: list[JournalEntry] = []
        self.heads: dict[str, Head] = {}
        self.reachable = True

    def ask(self) -> None:
        """Raise if the network is cut."""
        if not self.reachable:
            raise StorageError("the engine does not answer")

    def holder(self) -> Lease | None:
        """Return the lease that has not ended."""
        return self.lease if self.clock.now() < self.ends else None


class FakeLeases:
    """A lease board over `State`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def read(self) -> Lease | None:
        self._state.ask()
        return self._state.holder()

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        state = self._state
        with state.turn:
            state.ask()
            if state.holder() is not None:
                return None
            state.term += 1
            state.lease = Lease(holder, address, state.term, ttl)
            state.ends = state.clock.now() + ttl
            return state.lease

    def renew(self, lease: Lease) -> Lease | None:
        state = self._state
        with state.turn:
            state.ask()
            if state.holder() != lease:
                return None
            state.ends = state.clock.now() + lease.ttl
            return lease

    def release(self, lease: Lease) -> None:
        with self._state.turn:
            if self._state.lease == lease:
                self._state.lease = None
                self._state.ends = 0.0


class FakeJournal:
    """A journal over `State`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        kept = distinct(entries)
        with self._state.turn:
            self._compare(term)
            new = list(self._state.entries)
            for entry in kept:
                _add(new, entry)
                if entry.step in ENDS:
                    place = (entry.run, entry.round, Step.KEY)
                    new = [e for e in new if (e.run, e.round, e.step) != place]
            self._state.entries = new
            self._state.term = term

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        self._state.ask()
        found = tuple(self._state.entries)
        return (e for e in found if e.run == run and e.round >= first_round)

    def head(self, run: str) -> Head | None:
        self._state.ask()
        return self._state.heads.get(run)

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        with self._state.turn:
            self._compare(term)
            found = self._state.heads.get(new.run)
            if found == new:
                self._state.term = term
                return
            if found != expected:
                raise Conflict(f"head of {new.run} is {found}")
            place = (new.run, new.round, "")
            known = self._state.entries
            mine = [e for e in known if (e.run, e.round, e.site) == place]
            bar = unready(new, {e.step: e.detail for e in mine}, closed)
            if bar:
                raise Conflict(bar)
            self.append(term, [release_entry(new)])
            self._state.heads[new.run] = new

    def _compare(self, term: int) -> None:
        self._state.ask()
        if term < self._state.term:
            raise StaleTerm(f"term {term}: term {self._state.term} leads")


def _add(entries: list[JournalEntry], entry: JournalEntry) -> None:
    if entry in entries:
        return
    place = (entry.run, entry.round, entry.step, entry.site)
    if any((e.run, e.round, e.step, e.site) == place for e in entries):
        raise Conflict(f"{place} was written before")
    if any(e.operation == entry.operation for e in entries):
        raise Conflict(f"operation {entry.operation} was something else")
    entries.append(entry)


def engine(state: State) -> Engine:
    """Return an aggregator's view of `state`."""
    return Engine(FakeLeases(state), FakeJournal(state))


def create(settings: Mapping[str, object]) -> Engine:
    """Return a new engine; like a plug's `create`."""
    clock = settings.get("clock")
    return engine(State(clock if isinstance(clock, FakeClock) else FakeClock()))
