"""Leaderships of one aggregator over a whole run; sites answer at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from flwr.serverapp import Grid

from fedsecure.clock import SystemClock
from fedsecure.errors import StorageError
from fedsecure.flower.campaign import Campaign
from fedsecure.flower.strategy import TROUBLES_ALLOWED, SecureFedAvg, Wire
from fedsecure.flower.vitals import Vitals
from fedsecure.metadata import Head, Journal, JournalEntry, Step
from tests.fakes.federation import Federation
from tests.fakes.metadata import engine

ROUNDS = TROUBLES_ALLOWED + 2


class Hiccups:
    """A journal that does not write a round's CLOSE row the first `times` times."""

    def __init__(self, whole: Journal, times: int) -> None:
        self._whole = whole
        self._times = times
        self.seen: list[int] = []

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        number, step = entries[0].round, entries[0].step
        if step == Step.CLOSE and self.seen.count(number) < self._times:
            self.seen.append(number)
            raise StorageError(f"no room for round {number}")
        self._whole.append(term, entries)

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        return self._whole.entries(run, first_round)

    def head(self, run: str) -> Head | None:
        return self._whole.head(run)

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        self._whole.advance(term, expected, new, closed)


class NoGrid:
    """A SuperLink that knows of nobody: the federation delivers by itself."""

    def get_node_ids(self) -> list[int]:
        return []


def run(times: int, rounds: int = ROUNDS) -> tuple[Federation, Hiccups]:
    """Run a federation whose journal fails `times` times in each round."""
    federation = Federation(rounds=rounds, private=False)
    journal = Hiccups(engine(federation.state).journal, times)
    leader = federation.leader("agg-1")
    federation.state.lease, federation.state.clock = None, SystemClock()
    tools = replace(leader.tools, journal=journal)
    leases, clock = engine(federation.state).leases, SystemClock()
    strategy = SecureFedAvg(
        federation.terms,
        lambda _: tools,
        Campaign(leases, "agg-1", "", 2.0, clock),
        Wire(lambda _: dict),
        Vitals(2.0, clock, lambda _: None),
    )
    try:
        strategy.start(cast("Grid", NoGrid()))
    except StorageError:
        journal.seen.append(0)  # the run gave up
    return federation, journal


def test_troubles_with_a_release_between_them_do_not_end_the_run() -> None:
    federation, journal = run(times=1)
    assert journal.seen == list(range(1, ROUNDS + 1))
    released = [e.round for e in federation.journal() if e.step == Step.RELEASE]
    assert released == list(range(1, ROUNDS + 1))


def test_troubles_without_a_release_between_them_end_the_run() -> None:
    _, journal = run(times=100)
    assert journal.seen == [1] * (TROUBLES_ALLOWED + 1) + [0]


def test_troubles_of_a_round_are_counted_from_its_predecessor_s_release() -> None:
    _, journal = run(times=TROUBLES_ALLOWED, rounds=2)
    assert journal.seen == [1] * TROUBLES_ALLOWED + [2] * TROUBLES_ALLOWED
