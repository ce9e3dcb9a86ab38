"""Lease and journal as a state machine: crash, pause, partition, skew, repeat, heal.

Hypothesis looks for an order of events in which an engine breaks a promise. What leads
is the members' real campaign logic (`election.decide`) under a clock of the test's;
every acknowledged write is kept once, terms never fall in the journal, and a member
that thinks it leads never writes after a later one did.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fedsecure import registry
from fedsecure.election import Act, Standing, decide, granted, lost
from fedsecure.errors import Conflict, StaleTerm, StorageError
from fedsecure.metadata import Engine, Head, JournalEntry, Step
from tests.fakes.clock import FakeClock
from tests.fakes.metadata import State, engine

TTL = 3.0
MEMBERS = st.sampled_from(["agg-1", "agg-2", "agg-3"])
SKEW = st.floats(-3600, 3600)


@dataclass
class Member:
    """One aggregator: its engine, its own clock, and what it believes."""

    engine: Engine
    clock: FakeClock
    standing: Standing
    cut: bool = False
    written: list[JournalEntry] = field(default_factory=list)


class Leases(RuleBasedStateMachine):
    """What any engine must live through; `open` is another view of the same server."""

    paused_members = True

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, Member] = {}
        self.acknowledged: list[tuple[int, JournalEntry]] = []
        self.terms: list[int] = []
        self.heads: list[Head] = []
        self.number = 0

    def open(self, name: str) -> Engine:
        raise NotImplementedError

    def asks(self, member: Member) -> None:
        """Raise if the member's network is cut."""
        if member.cut:
            raise StorageError("cut off")

    def crash_of(self, member: Member) -> None:
        """Do what the kernel does when the member's process dies."""

    @initialize()
    def begin(self) -> None:
        for name in ("agg-1", "agg-2", "agg-3"):
            made = self.open(name)
            self.members[name] = Member(made, FakeClock(), Standing(name))

    @rule(name=MEMBERS)
    def turn(self, name: str) -> None:
        """One turn of the campaign's loop."""
        member = self.members[name]
        now = member.clock.now()
        try:
            self.asks(member)
            seen = None
            if member.standing.lease is None:
                seen = member.engine.leases.read()
            decision = decide(member.standing, seen, now, ailment="", frozen=False)
            self._act(member, decision.act, now)
        except StorageError:
            if now >= member.standing.valid_until:
                member.standing = lost(member.standing)

    def _act(self, member: Member, act: Act, now: float) -> None:
        leases, standing = member.engine.leases, member.standing
        if act == Act.CAMPAIGN:
            lease = leases.acquire(standing.name, "here", TTL)
            if lease is not None:
                member.standing = granted(standing, lease, now)
                self.terms.append(lease.term)
        elif act == Act.RENEW and standing.lease is not None:
            kept = leases.renew(standing.lease)
            member.standing = (
                lost(standing) if kept is None else granted(standing, kept, now)
            )
        elif act == Act.STEP_DOWN and standing.lease is not None:
            member.standing = lost(standing)
            leases.release(standing.lease)

    @rule(name=MEMBERS, repeated=st.booleans())
    def write(self, name: str, *, repeated: bool) -> None:
        """Write an entry, or an old one again: a retry whose answer was lost."""
        member = self.members[name]
        lease = member.standing.lease
        if lease is None:
            return
        entry = self._entry(name)
        if repeated and member.written:
            entry = member.written[-1]
        try:
            self.asks(member)
            member.engine.journal.append(lease.term, [entry])
        except (StaleTerm, StorageError):
            return
        assert lease.term >= max((t for t, _ in self.acknowledged), default=0)
        if entry not in member.written:
            self.acknowledged.append((lease.term, entry))
            member.written.append(entry)

    @rule(name=MEMBERS, behind=st.booleans(), other=st.booleans())
    def advance(self, name: str, *, behind: bool, other: bool) -> None:
        """Close a round and move the head, from what it is or was, over what is closed.

        Or over another set than the closed one.
        """
        member = self.members[name]
        lease = member.standing.lease
        if lease is None or member.cut:
            return
        places = len(self.heads) - (1 if behind and self.heads else 0)
        expected = self.heads[places - 1] if places else None
        number = len(self.heads) + 1
        new = Head("run", number, number, number.to_bytes(32, "big"), lease.term)
        closed = b'{"number":%d}' % number
        close = JournalEntry("run", number, Step.CLOSE, "", f"close-{number}", closed)
        asked = b"{}" if other else closed
        try:
            member.engine.journal.append(lease.term, [close])
            member.engine.journal.advance(lease.term, expected, new, asked)
        except (StaleTerm, Conflict):
            return
        assert not other
        assert expected == (self.heads[-1] if self.heads else None)
        self.heads.append(new)

    @rule(seconds=st.floats(0.0, 2 * TTL))
    def time(self, seconds: float) -> None:
        for member in self.members.values():
            member.clock.jump(seconds)
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Let the server's clock go on, if it has one."""

    @rule(name=MEMBERS, seconds=SKEW)
    def skew(self, name: str, seconds: float) -> None:
        """Set a member's time of day: no decision may depend on it."""
        self.members[name].clock.jump_wall(seconds)

    @rule(name=MEMBERS, cut=st.booleans())
    def partition(self, name: str, *, cut: bool) -> None:
        self.members[name].cut = cut

    @rule(name=MEMBERS)
    def crash(self, name: str) -> None:
        """A process dies and another one of its name is started."""
        self.crash_of(self.members[name])
        self.members[name].engine = self.open(name)
        self.members[name].standing = Standing(name)

    @precondition(lambda self: self.paused_members)
    @rule(name=MEMBERS)
    def resume_amid_a_write(self, name: str) -> None:
        """A member stands still between look and write while others go on."""
        member = self.members[name]
        lease = member.standing.lease
        if lease is None:
            return
        self.time(2 * TTL)
        for other in self.members:
            if other != name:
                self.turn(other)
        entry = self._entry(name)
        newer = max(self.terms) > lease.term
        try:
            member.engine.journal.append(lease.term, [entry])
        except (StaleTerm, StorageError):
            return
        assert not newer
        self.acknowledged.append((lease.term, entry))

    @invariant()
    def leaders_have_terms_that_rise(self) -> None:
        assert self.terms == sorted(set(self.terms))

    @invariant()
    def acknowledged_writes_are_kept_once_and_in_order(self) -> None:
        if not self.members:
            return
        kept = list(self.members["agg-1"].engine.journal.entries("run", 0))
        written = [e for e in kept if e.step == Step.UPDATE]
        assert written == [entry for _, entry in self.acknowledged]
        terms = [term for term, _ in self.acknowledged]
        assert terms == sorted(terms)

    @invariant()
    def the_head_is_the_last_one_committed(self) -> None:
        if self.members:
            found = self.members["agg-1"].engine.journal.head("run")
            assert found == (self.heads[-1] if self.heads else None)

    def _entry(self, name: str) -> JournalEntry:
        self.number += 1
        operation = f"{name}-{self.number}"
        return JournalEntry("run", self.number, Step.UPDATE, name, operation, b"{}")


class FakeLeases(Leases):
    """Over dicts, whose leases end by the server's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.state = State(self.clock)

    def open(self, name: str) -> Engine:
        return engine(self.state)

    def pass_time(self, seconds: float) -> None:
        self.clock.jump(seconds)


class EmbeddedLeases(Leases):
    """Over flock and SQLite on a real disk; members are objects of one process.

    A lease here ends with its holder's process, and a holder that hangs is killed: as
    nobody can be killed in this test, members that stand still keep it.
    """

    paused_members = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="fed-machine-"))

    def open(self, name: str) -> Engine:
        made: Engine = registry.load("metadata", "embedded").create(
            {"path": self.folder / "lease"}
        )
        return made

    def crash_of(self, member: Member) -> None:
        # The kernel drops a dead process's lock; nothing else is tidied up.
        heartbeat = member.engine.leases._heartbeat  # type: ignore[attr-defined]
        if heartbeat._lock is not None:
            heartbeat._lock.release()
            heartbeat._lock = None

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=QUIET,
    )


@pytest.mark.parametrize("machine", [FakeLeases, EmbeddedLeases])
def test_no_order_of_events_breaks_an_engine(machine: type[Leases]) -> None:
    examples = 60 if machine is FakeLeases else 12
    run_state_machine_as_test(machine, settings=_settings(examples, 40))


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("machine", [FakeLeases, EmbeddedLeases])
def test_no_long_order_of_events_breaks_an_engine(machine: type[Leases]) -> None:
    examples = 2000 if machine is FakeLeases else 200
    run_state_machine_as_test(machine, settings=_settings(examples, 80))


def test_the_machine_notices_an_engine_that_compares_no_terms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.fakes.metadata import FakeJournal

    monkeypatch.setattr(FakeJournal, "_compare", lambda *_: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(FakeLeases, settings=_settings(200, 60))
