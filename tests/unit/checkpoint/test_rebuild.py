"""An engine that is lost is made again from the stores, and the run goes on."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fedsecure.checkpoint.inventory import examiner, take
from fedsecure.checkpoint.rebuild import Rebuilt, rebuilt, write
from fedsecure.checkpoint.retention import Facts, Rules, carry_out, read_marks, sweep
from fedsecure.checkpoint.roundkey import RoundKey
from fedsecure.envelope import Kind, Verified
from fedsecure.errors import ConfigurationError, StorageError, VerificationError
from fedsecure.metadata import Engine, JournalEntry, Step
from fedsecure.server_round import read_detail
from tests.fakes.checkpoints import (
    finished,
    inventory,
    judge,
    keys,
    new_engine,
    stores,
)
from tests.fakes.federation import RUN, Federation
from tests.fakes.fuses import Died, Fuse, Until
from tests.fakes.metadata import engine


def begins(federation: Federation) -> list[Verified]:
    look = examiner(take(stores(federation), judge(federation), None))
    found = []
    for key in keys(federation, "begin/"):
        good = look(key).good
        assert good is not None
        found.append(judge(federation).message(key, good, Kind.BEGIN))
    return found


def made(federation: Federation) -> Rebuilt:
    chain = take(stores(federation), judge(federation), None).chains[RUN]
    lines = federation.leader("agg-1").tools.ledger.records()
    return rebuilt(chain, begins(federation), lines)


def interrupted(rounds: int = 3, done: int = 2, updates: int = 2) -> Federation:
    """Return a federation whose engine is about to be lost.

    `done` rounds are released, and the next is open: `updates` of three are journalled.
    """
    federation = Federation(rounds=rounds, private=False)
    journalled = 3 * done + updates
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal update", journalled))
    assert len(opened(federation)) == updates
    return federation


def opened(federation: Federation) -> list[JournalEntry]:
    """Return the UPDATE rows of the last round that was opened."""
    rows = federation.journal()
    last = max(e.round for e in rows if e.step == Step.OPEN)
    return [e for e in rows if e.round == last and e.step == Step.UPDATE]


def test_the_head_is_the_one_that_was_lost() -> None:
    federation = finished()
    before = engine(federation.state).journal.head(RUN)
    rebuild = made(federation)
    lost = new_engine(federation)
    write(lost, rebuild, "agg-1", "")
    found = lost.journal.head(RUN)
    assert before is not None
    assert found is not None
    assert found.manifest == before.manifest


def test_beginnings_are_those_that_were_lost() -> None:
    federation = finished()
    before = [e.detail for e in federation.journal() if e.step == Step.BEGIN]
    rebuild = made(federation)
    write(new_engine(federation), rebuild, "agg-1", "")
    after = [e.detail for e in federation.journal() if e.step == Step.BEGIN]
    assert after == before


def test_the_run_goes_on_to_its_end_under_a_higher_term() -> None:
    federation = interrupted()
    rebuild = made(federation)
    term = write(new_engine(federation), rebuild, "agg-1", "")
    assert term > max(m.term for m in inventory(federation).chains[RUN].links)
    federation.lead("agg-2")
    assert len(set(federation.models().values())) == 1
    assert [m.round for m in inventory(federation).chains[RUN].links] == [1, 2, 3]
    assert all(s.opened().keys() == {1, 2, 3} for s in federation.sites.values())


def names(rows: list[JournalEntry]) -> set[str]:
    return {str(read_detail(row)["object"]) for row in rows}


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_round_that_was_open_closes_on_the_same_updates(updates: int) -> None:
    federation = interrupted(updates=updates)
    lost = {row.site: read_detail(row)["digest"] for row in opened(federation)}
    write_again(federation)
    federation.lead("agg-2")
    again = {row.site: read_detail(row)["digest"] for row in opened(federation)}
    assert lost.items() <= again.items()
    assert all(len(s.trainer.trained) == 3 for s in federation.sites.values())


@pytest.mark.parametrize("step", [1, 2, 5, 6, 7, 9, 14])
def test_who_leads_after_a_stop_in_the_round_opened_anew_ends_it(step: int) -> None:
    federation = interrupted(rounds=2, done=1)
    write_again(federation)
    with pytest.raises(Died):
        federation.lead("agg-2", Fuse("agg-2", dies_after=step))
    federation.lead("agg-1")
    assert len(set(federation.models().values())) == 1


def write_again(federation: Federation) -> None:
    rebuild = made(federation)
    write(new_engine(federation), rebuild, "agg-1", "")


def test_what_lies_under_the_lost_key_goes_after_the_grace_period() -> None:
    federation = interrupted()
    lost = names(opened(federation))
    write_again(federation)
    federation.lead("agg-2")
    assert lost <= set(keys(federation, "update/"))
    now, rules = datetime(2030, 1, 31, tzinfo=UTC), Rules(9, 0.0, 0.0, timedelta(1))
    begins = frozenset(keys(federation, "begin/"))
    for later in (now, now + timedelta(days=2)):
        found = inventory(federation)
        marks = read_marks(found.stores, found.held)
        due = sweep(found, Facts(frozenset({RUN}), begins), rules, later, marks)
        carry_out(found.stores, due, later)
    assert keys(federation, "update/") == []
    assert len(inventory(federation).chains[RUN].links) == 3


def test_rows_of_the_version_before_are_read_by_the_names_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def before(_: RoundKey, digest: bytes) -> str:
        return f"update/{hashlib.sha256(digest + b'object').hexdigest()}"

    with monkeypatch.context() as old:
        old.setattr(RoundKey, "name", before)
        federation = interrupted(done=0, rounds=1)
    federation.lead("agg-2")
    reused = [f for name, f in federation.notes.events if name == "resumed"]
    assert [f["reused"] for f in reused] == [["site-1", "site-2"]]
    assert keys(federation, "update/") == []


class Cut:
    """A journal whose power fails before its n-th write."""

    def __init__(self, whole: Engine, writes: int) -> None:
        self.left = writes
        journal = whole.journal
        for name in ("append", "advance"):
            setattr(self, name, self._counted(getattr(journal, name)))
        self.head, self.entries = journal.head, journal.entries

    def _counted(self, call: object) -> object:
        def counted(*args: object) -> None:
            if self.left == 0:
                raise StorageError("power is lost")
            self.left -= 1
            call(*args)  # type: ignore[operator]

        return counted


@pytest.mark.parametrize("writes", range(2))
def test_after_a_stop_at_any_write_nobody_leads_and_a_repeat_completes_it(
    writes: int,
) -> None:
    federation = interrupted()
    rebuild = made(federation)
    lost = new_engine(federation)
    with pytest.raises(StorageError):
        write(replace(lost, journal=Cut(lost, writes)), rebuild, "agg-1", "")  # type: ignore[arg-type]
    if writes:
        with pytest.raises(VerificationError, match="release before open"):
            federation.lead("agg-2")
    federation.state.lease = None
    write(lost, rebuild, "agg-1", "")
    federation.lead("agg-2")
    assert [m.round for m in inventory(federation).chains[RUN].links] == [1, 2, 3]


def test_a_repeat_changes_nothing() -> None:
    federation = interrupted()
    rebuild = made(federation)
    lost = new_engine(federation)
    write(lost, rebuild, "agg-1", "")
    before = federation.journal()
    write(lost, rebuild, "agg-1", "")
    assert federation.journal() == before


def test_an_engine_that_is_not_lost_is_not_written_over() -> None:
    federation = interrupted()
    rebuild, before = made(federation), federation.journal()
    federation.state.ends = 0.0
    with pytest.raises(ConfigurationError, match="it is not lost"):
        write(engine(federation.state), rebuild, "agg-1", "")
    assert federation.journal() == before


def test_while_somebody_leads_nothing_is_written() -> None:
    federation = interrupted()
    rebuild = made(federation)
    lost = new_engine(federation)
    lost.leases.acquire("agg-2", "", 1e9)
    with pytest.raises(ConfigurationError, match="somebody leads"):
        write(lost, rebuild, "agg-1", "")
    assert federation.journal() == []


def test_a_release_that_the_ledger_has_and_the_stores_do_not_is_missed() -> None:
    federation = interrupted()
    for store in federation.stores:
        del store.objects[f"manifest/{RUN}/00000002"]
    with pytest.raises(VerificationError, match="ledger has release"):
        made(federation)


def test_a_gap_in_the_chain_is_refused() -> None:
    federation = finished(3)
    lines = federation.leader("agg-1").tools.ledger.records()
    for store in federation.stores:
        del store.objects[f"manifest/{RUN}/00000002"]
    chain = inventory(federation).chains[RUN]
    with pytest.raises(VerificationError, match="before number 3"):
        rebuilt(chain, begins(federation), lines)


def test_a_run_whose_key_is_gone_is_not_made_again() -> None:
    federation = finished()
    chain = inventory(federation).chains[RUN]
    with pytest.raises(VerificationError, match="beginning of its key"):
        rebuilt(chain, [], ())


def test_of_two_keys_the_one_that_releases_are_under_is_taken() -> None:
    federation = finished()
    right = begins(federation)[0]
    scope = replace(right.scope, key_id=b"o" * 32)
    chain = inventory(federation).chains[RUN]
    found = rebuilt(chain, [replace(right, scope=scope), right], ())
    assert [e.operation for e in found.entries if e.step == Step.BEGIN] == [
        f"begin-{right.digest.hex()}"
    ]


def test_of_two_keys_without_a_release_none_is_taken() -> None:
    federation = finished()
    right = begins(federation)[0]
    chain = replace(inventory(federation).chains[RUN], links=())
    other = replace(right, scope=replace(right.scope, key_id=b"o" * 32))
    with pytest.raises(VerificationError, match="2 run keys"):
        rebuilt(chain, [right, other], ())


def entries(found: list[JournalEntry], step: Step) -> list[JournalEntry]:
    return [e for e in found if e.step == step]


def test_every_release_has_its_row() -> None:
    federation = finished(3)
    before = entries(federation.journal(), Step.RELEASE)
    rebuild = made(federation)
    write(new_engine(federation), rebuild, "agg-1", "")
    assert entries(federation.journal(), Step.RELEASE) == before
