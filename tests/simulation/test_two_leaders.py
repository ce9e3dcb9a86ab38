"""Two aggregators never commit two models for one round, whatever the old one does.

The old leader stands still before one of its durable steps, as SIGSTOP makes it; the
new one finishes the run; then the old one goes on where it stood.
"""

import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.errors import LeaseLost, StaleTerm, StorageError
from fedsecure.flower.beginning import begin
from fedsecure.flower.driver import RoundDriver
from fedsecure.flower.letters import Letters
from fedsecure.metadata import JournalEntry, Step
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import heads, violations
from tests.simulation.test_crashes import SERVER_STEPS

OVER = (LeaseLost, StaleTerm, StorageError)
"""How it learns of it: its lease, the journal, or what others wrote or dropped."""


def resumed(step: int, *, notices: bool) -> tuple[Federation, bool]:
    """Pause a leader before a step, let another finish, go on; True: it was stopped."""
    federation = Federation()
    fuse = Fuse("agg-1", pause=(step, lambda: federation.lead("agg-2")))
    check = None if notices else (lambda: None)
    try:
        federation.lead("agg-1", fuse, check)
    except OVER:
        return federation, True
    return federation, False


@pytest.mark.parametrize("notices", [True, False])
@pytest.mark.parametrize("step", range(2, SERVER_STEPS + 1, 2))
def test_paused_leader_commits_nothing_when_it_goes_on(
    step: int, notices: bool
) -> None:
    federation, _ = resumed(step, notices=notices)
    assert [head.round for head in heads(federation)] == [1, 2]
    left = [v for v in violations(federation) if "outlives" not in v]
    assert left == []
    for site in federation.sites.values():
        assert site.trainer.trained == {1: 1, 2: 1}


def test_leader_that_does_not_notice_is_stopped_by_the_journal() -> None:
    federation = Federation()
    fuse = Fuse("agg-1", pause=(16, lambda: federation.lead("agg-2")))
    with pytest.raises(StaleTerm):
        federation.lead("agg-1", fuse, lambda: None)
    assert violations(federation)[1:] == []  # one update that nobody waits for stays


def test_leader_that_looks_at_its_lease_stops_before_it_writes() -> None:
    federation = Federation()
    leader = federation.leader("agg-1")
    federation.leader("agg-2")
    with pytest.raises(LeaseLost, match="term 1 is over"):
        leader.write(JournalEntry(RUN, 1, Step.OPEN, "", "operation", b"{}"))


def test_release_of_an_old_term_is_not_committed() -> None:
    federation = Federation()
    fuse = Fuse("agg-1")
    federation.lead("agg-1", fuse)
    commit = fuse.names.index("head") + 1
    late = Federation()
    old = Fuse("agg-1", pause=(commit, lambda: late.lead("agg-2")))
    with pytest.raises(StaleTerm):
        late.lead("agg-1", old, lambda: None)
    assert violations(late) == []
    digests = {site.opened()[1] for site in late.sites.values()}
    assert len(digests) == 1


def test_site_that_has_seen_a_term_refuses_an_older_one() -> None:
    federation = Federation()
    old = federation.leader("agg-1", check=lambda: None)
    federation.lead("agg-2")
    site = federation.sites["site-1"]
    trained = site.trainer.trained.total()
    with pytest.raises(OVER):
        RoundDriver(old).run_round(3)
    assert site.trainer.trained.total() == trained
    assert "term.seen" in {r.action for r in site.records()}


def test_restarted_site_still_refuses_an_older_term() -> None:
    federation = Federation(rounds=1)
    old = federation.leader("agg-1", check=lambda: None)
    federation.lead("agg-2")
    site = federation.sites["site-1"]
    site.die()
    letter = Letters(old, begin(old, None)).request("site-1", 1, train=True)()
    refusal = parse(site.answer(letter), MAX_BYTES)
    assert refusal.kind == Kind.REFUSAL
    assert b'"code":"stale_term"' in refusal.header


def test_both_terms_are_in_the_sites_ledgers() -> None:
    federation = Federation()
    fuse = Fuse("agg-1", dies_after=20)
    with pytest.raises(Died, match="agg-1"):
        federation.lead("agg-1", fuse)
    federation.lead("agg-2")
    for site in federation.sites.values():
        terms = [r.term for r in site.records() if r.action == "term.seen"]
        assert terms == [1, 2]
    assert {e.step for e in federation.journal()} >= {Step.BEGIN, Step.PUBLISH}
