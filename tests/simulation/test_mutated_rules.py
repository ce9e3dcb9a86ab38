"""More rules taken out one at a time (RESILIENCE 11.10): each is noticed.

As in `test_mutations`, a scenario says what is wrong, and nothing without a mutation.
Directory syncs are taken out in `test_crash_prefixes`, the journal's uniqueness and the
ledger's fsync in `test_mutations`.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fedsecure import election, registry, witness
from fedsecure.checkpoint import retention
from fedsecure.checkpoint.inventory import Inventory
from fedsecure.checkpoint.manifest import MAX_BYTES as MANIFEST_BYTES
from fedsecure.checkpoint.manifest import Manifest, read_manifest
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.vault import Vault
from fedsecure.client_round import ClientRound
from fedsecure.drills.history import sentences
from fedsecure.election import Decision, Standing
from fedsecure.envelope import Kind, Scope, parse, sign
from fedsecure.errors import FedsecureError, LeaseLost, StaleTerm
from fedsecure.flower import campaign
from fedsecure.flower.campaign import Campaign
from fedsecure.flower.vitals import SILENCE_TTLS, STEP, Vitals
from fedsecure.metadata import Engine, JournalEntry, Lease, Step
from fedsecure.monitor.stillness import Stillness
from fedsecure.outgoing import Outgoing
from fedsecure.release import Release, release_of, root
from fedsecure.trainer import Trainer
from fedsecure.update import RoundId
from tests.fakes.checkpoints import inventory, keys, stores
from tests.fakes.clock import FakeClock
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import altered
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import history_of
from tests.fakes.metadata import State, engine
from tests.simulation.test_rollback import (
    ME,
    after_two_rounds,
    codes,
    federated,
    put_back,
)

TTL = 3.0
OPEN = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
Monkey = pytest.MonkeyPatch


@pytest.fixture
def plug() -> ModuleType:
    return registry.load("metadata", "embedded")


# --- the journal of one machine -------------------------------------------------------


def overtaken_amid_a_write(plug: ModuleType, folder: Path) -> list[str]:
    """Let a higher term lead between a write's beginning and its transaction."""
    one: Engine = plug.create({"path": folder})
    other = plug.Database(folder / "journal.sqlite")
    writing = plug.Database.writing
    with pytest.MonkeyPatch.context() as inner:

        def overtaken(self: object) -> object:
            inner.setattr(plug.Database, "writing", writing)
            other.raise_term(2)
            return writing(self)

        inner.setattr(plug.Database, "writing", overtaken)
        with suppress(StaleTerm):
            one.journal.append(1, [OPEN])
    return ["term 1 wrote under term 2"] if list(one.journal.entries("run", 0)) else []


def test_term_compared_outside_the_transaction_is_noticed(
    monkeypatch: Monkey, plug: ModuleType, tmp_path: Path
) -> None:
    assert overtaken_amid_a_write(plug, tmp_path / "sound") == []
    compare = plug._compare_term

    def outside(self: object, term: int, entries: Sequence[JournalEntry]) -> None:
        database = self._database  # type: ignore[attr-defined]
        compare(database.connection(), term)
        with database.writing() as connection:
            for entry in entries:
                plug._insert(connection, term, entry)

    monkeypatch.setattr(plug.EmbeddedJournal, "append", outside)
    assert overtaken_amid_a_write(plug, tmp_path / "mutated") != []


def test_term_that_embedded_does_not_compare_is_noticed(
    monkeypatch: Monkey, plug: ModuleType, tmp_path: Path
) -> None:
    monkeypatch.setattr(plug, "_compare_term", lambda *_: None)
    assert overtaken_amid_a_write(plug, tmp_path) != []


def unsynced(plug: ModuleType, folder: Path) -> list[str]:
    """Return what of SQLite's settings lets a committed row be lost with the power."""
    connection = plug.Database(folder / "journal.sqlite").connection()
    full, wal = "PRAGMA synchronous", "PRAGMA journal_mode"
    found = [connection.execute(each).fetchone()[0] for each in (full, wal)]
    return [] if found == [2, "wal"] else [f"synchronous, journal: {found}"]


def test_journal_without_fsync_is_noticed(
    monkeypatch: Monkey, plug: ModuleType, tmp_path: Path
) -> None:
    assert unsynced(plug, tmp_path) == []
    connection = plug.Database.connection

    def lax(self: object) -> sqlite3.Connection:
        made: sqlite3.Connection = connection(self)
        made.execute("PRAGMA synchronous=OFF")
        return made

    monkeypatch.setattr(plug.Database, "connection", lax)
    assert unsynced(plug, tmp_path) != []


# --- stores ---------------------------------------------------------------------------


def undisturbed() -> list[str]:
    """Return the names of a leader's durable steps."""
    fuse = Fuse("agg-1")
    Federation().lead("agg-1", fuse)
    return fuse.names


def left_by_stores() -> list[str]:
    federation = Federation()
    try:
        federation.lead()
    except FedsecureError as stopped:
        return [f"the run ends: {stopped}"]
    return sentences(history_of(federation))


def test_acknowledgement_before_w_stores_is_noticed(monkeypatch: Monkey) -> None:
    assert left_by_stores() == []

    def first_only(self: Replicas, key: str, value: bytes, *_: object) -> None:
        with suppress(FedsecureError):
            self._stores[0][1].put(key, value)

    monkeypatch.setattr(Replicas, "put", first_only)
    assert [line for line in left_by_stores() if line.startswith("I4")] != []


def swept_amid_a_release() -> list[str]:
    """Sweep twice between a release's object and the manifest that will name it."""
    manifest = next(n for n, s in enumerate(undisturbed(), 1) if "put manifest" in s)
    federation = Federation()
    rules = retention.Rules(1, 0.0, 0.0, timedelta(hours=24))

    def tidy() -> None:
        named = frozenset([*keys(federation, "begin/"), *keys(federation, "update/")])
        for _ in range(2):
            found, now = inventory(federation), federation.clock.wall()
            marks = retention.read_marks(found.stores, found.held)
            facts = retention.Facts(named=named)
            due = retention.sweep(found, facts, rules, now, marks)
            retention.carry_out(stores(federation), due, now)

    try:
        federation.lead("agg-1", Fuse("agg-1", pause=(manifest, tidy)))
    except FedsecureError as stopped:
        return [f"the run ends: {stopped}"]
    return sentences(history_of(federation))


def test_removal_without_grace_is_noticed(monkeypatch: Monkey) -> None:
    assert swept_amid_a_release() == []
    nobodys = retention._nobodys

    def at_once(
        found: Inventory,
        facts: retention.Facts,
        rules: retention.Rules,
        now: datetime,
        marks: Mapping[str, datetime],
        gone: set[str],
    ) -> Iterator[retention.Due]:
        hasty = replace(rules, grace=timedelta(0))
        return nobodys(found, facts, hasty, now, marks, gone)

    monkeypatch.setattr(retention, "_nobodys", at_once)
    assert swept_amid_a_release() != []


def left_behind() -> list[str]:
    """Release one set after another leader left the manifest of another."""
    federation = Federation()

    def released(name: str, sites: Mapping[str, bytes], body: bytes) -> str:
        made = release_of(RoundId("run", 1), 0, sites, body)
        scope = Scope(made.round, "*", b"k" * 32, b"l" * 32, b"p" * 32)
        signing, header = federation.signing(name), {**made.header(), "term": 1}
        kind = Kind.RELEASE
        data = sign(kind, scope, header, body, signer=name, key=signing).to_bytes()
        vault = federation.vault(name)
        head = vault.release(data, made, root(sites.items()), 1, None)
        found = vault.manifest(head).release
        return "" if found == made.digest().hex() else f"released {found}"

    two = {"site-1": b"1" * 32, "site-2": b"2" * 32}
    assert released("agg-1", two, b"two") == ""
    wrong = released("agg-2", {**two, "site-3": b"3" * 32}, b"three")
    return [wrong] if wrong else []


def test_manifest_adopted_without_a_look_at_its_close_is_noticed(
    monkeypatch: Monkey,
) -> None:
    assert left_behind() == []

    def blind(
        self: Vault, run: str, sequence: int, release: Release, tie: tuple[str, str]
    ) -> Manifest:
        _ = release, tie
        key = f"manifest/{run}/{sequence:08d}"
        found = self._replicas.get(key, MANIFEST_BYTES, lambda stored: stored)
        return read_manifest(found, self._keys)

    monkeypatch.setattr(Vault, "_adopt", blind)
    assert left_behind() != []


# --- what leaves a site, and what its ledger remembers --------------------------------


def told_twice(kept: int) -> list[str]:
    """Ask a site under two terms for one round; its answers must be one."""
    federation, left = Federation(), dict[tuple[str, int], set[bytes]]()

    def tap(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if found.kind == Kind.UPDATE:
            left.setdefault((site, found.scope.round.number), set()).add(data)
        return data

    federation.tamper = tap
    with pytest.raises(Died):  # before its row: the successor asks again
        federation.lead("agg-1", Fuse("agg-1", dies_after=kept))
    with suppress(FedsecureError):
        federation.lead("agg-2")
    return [
        f"{place} sent two updates" for place, sent in left.items() if len(sent) > 1
    ]


def test_term_signed_into_the_envelope_is_noticed(monkeypatch: Monkey) -> None:
    kept = next(n for n, s in enumerate(undisturbed(), 1) if "put update" in s)
    assert told_twice(kept) == []
    answer, any_federation = ClientRound.answer, Federation()

    def with_term(self: ClientRound, data: bytes, trainer: Trainer) -> Outgoing:
        made = answer(self, data, trainer).to_bytes()
        if parse(made, MAX_BYTES).kind != Kind.UPDATE:
            return Outgoing.of(made)
        header = {"term": self._door.seen("run-1")}
        return Outgoing.of(altered(any_federation, made, header=header))

    monkeypatch.setattr(ClientRound, "answer", with_term)
    assert told_twice(kept) != []


def rolled_back() -> list[str]:
    """Put a site's whole machine back by a round, and let the run go on."""
    federation = federated()
    put_back(federation.sites[ME], after_two_rounds(federation))
    with suppress(FedsecureError):
        federation.lead("agg-2")
    said = set(codes(federation, ME))
    return [] if said == {"ledger"} else [f"a ledger put back is told by {said}"]


def test_ledger_that_goes_back_on_restore_is_noticed(monkeypatch: Monkey) -> None:
    assert rolled_back() == []
    monkeypatch.setattr(witness, "check_head", lambda *_: None)
    assert rolled_back() != []


# --- leadership -----------------------------------------------------------------------


class Two:
    """Two candidates over one board, stepped by hand."""

    def __init__(self) -> None:
        self.clock, self.silent, self.stuck = FakeClock(), False, False
        self.state = State(self.clock)
        self.vitals: dict[str, Vitals] = {}
        self.one = self._candidate("agg-1")
        self.two = self._candidate("agg-2")
        self.one._turn()

    def pass_ttls(self, ttls: int) -> None:
        for _ in range(6 * ttls + 1):
            self._live()
            for each in (self.one, self.two):
                with suppress(FedsecureError):
                    each._turn()
            self.clock.jump(TTL / 6)

    def may_act(self) -> bool:
        try:
            self.one.check(1)
        except LeaseLost:
            return False
        return True

    def _live(self) -> None:
        """Be answered, and make a step; agg-1 does so only if a test lets it."""
        for name, vitals in self.vitals.items():
            if not (self.silent and name == "agg-1"):
                vitals._answers.moved()
            if not (self.stuck and name == "agg-1"):
                vitals.step()

    def _candidate(self, name: str) -> Campaign:
        vitals = self.vitals[name] = Vitals(TTL, self.clock, lambda _: None)
        board, ailment = engine(self.state).leases, vitals.ailment
        return Campaign(board, name, "host", TTL, self.clock, ailment=ailment)


def led_while_unwell() -> list[str]:
    """Let an aggregator lead without a SuperLink, and one whose round stands still."""
    silent, stuck = Two(), Two()
    silent.silent = stuck.stuck = True
    silent.pass_ttls(SILENCE_TTLS + 1)
    stuck.pass_ttls(int(STEP / TTL) + 1)
    return [
        f"a leader whose {what} keeps its lease"
        for what, both in (("SuperLink is silent", silent), ("round is stuck", stuck))
        if both.may_act() or both.two.wait(0.0) is None
    ]


def led_in_silence() -> list[str]:
    both = Two()
    both.state.reachable = False
    both.clock.jump(2 * TTL)
    return ["a leader that cannot ask goes on"] if both.may_act() else []


def led_by_the_time_of_day() -> list[str]:
    both = Two()
    for seconds in (3600.0, -7200.0):
        both.pass_ttls(1)
        both.clock.jump_wall(seconds)
    if not both.may_act():
        return ["a leader lost its lease by the time of day"]
    return led_in_silence()


def test_renewal_without_health_is_noticed(monkeypatch: Monkey) -> None:
    assert led_while_unwell() == []
    decide = election.decide

    def careless(
        standing: Standing, seen: Lease | None, now: float, **others: object
    ) -> Decision:
        well: dict[str, Any] = {**others, "ailment": ""}
        return decide(standing, seen, now, **well)

    monkeypatch.setattr(campaign, "decide", careless)
    assert len(led_while_unwell()) == 2


def test_silence_that_is_not_counted_is_noticed(monkeypatch: Monkey) -> None:
    assert led_while_unwell() == []
    look = Stillness.look

    def forgiving(self: Stillness) -> float:
        self.moved()
        return look(self)

    monkeypatch.setattr(Stillness, "look", forgiving)
    assert len(led_while_unwell()) == 2


def test_leader_that_never_demotes_itself_is_noticed(monkeypatch: Monkey) -> None:
    assert led_in_silence() == []
    for where in (election, campaign):
        monkeypatch.setattr(where, "ended", lambda *_: "")
    assert led_in_silence() != []


def test_lease_by_the_time_of_day_is_noticed(monkeypatch: Monkey) -> None:
    assert led_by_the_time_of_day() == []
    monkeypatch.setattr(FakeClock, "now", lambda self: self.wall().timestamp())
    assert led_by_the_time_of_day() != []
