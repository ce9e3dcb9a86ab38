"""A site's ledger is put back from a backup, or a clone of the machine runs: refused.

All aggregators may have forgotten, the other sites may be all there is: whoever kept
one signed head of the longer ledger is enough.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import pytest

from fedsecure.envelope import Kind, Scope, Verified
from fedsecure.errors import FedsecureError, LedgerCorrupt
from fedsecure.flower.heads import Heads
from fedsecure.flower.leader import Terms
from fedsecure.metadata import Step
from fedsecure.receipts import HEADS, SEEN, KnownHeads, heads_document, read_heads
from fedsecure.trainer import JSON
from fedsecure.update import RoundId
from tests.fakes.disk import FakeDisk
from tests.fakes.federation import LEDGER, Federation, Site
from tests.fakes.fuses import Died, Until
from tests.fakes.metadata import State

ME = "site-2"


def snapshot(site: Site) -> tuple[dict[str, bytes], bytes]:
    """Return a backup of the whole machine: store and ledger."""
    return dict(site.store.objects), site.disk.durable[LEDGER]


def put_back(site: Site, backup: tuple[dict[str, bytes], bytes]) -> None:
    """Put a backup of the whole machine back and start it."""
    site.die()
    site.store.objects = dict(backup[0])
    site.disk.durable[LEDGER] = site.disk.cached[LEDGER] = backup[1]


def federated() -> Federation:
    return Federation(rounds=3, min_contributors=2)


def after_two_rounds(
    federation: Federation, leader: str = "agg-1"
) -> tuple[dict[str, bytes], bytes]:
    """Stop the run after round 2; return a site's backup from after round 1."""
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "head"))
    backup = snapshot(federation.sites[ME])
    with pytest.raises(Died):
        federation.lead(leader, Until(leader, "journal publish"))
    released = [e for e in federation.journal() if e.step == Step.RELEASE]
    assert len(released) == 2
    return backup


def codes(federation: Federation, site: str) -> list[str]:
    """Return the codes of a site's refusals, as the aggregators noted them."""
    noted = [f for event, f in federation.notes.events if event == "rejected"]
    return [str(f["code"]) for f in noted if f["site"] == site]


def test_restored_machine_is_refused_and_the_others_go_on() -> None:
    federation = federated()
    put_back(federation.sites[ME], after_two_rounds(federation))
    trained = federation.sites[ME].trainer.trained.total()
    federation.lead("agg-2")
    assert set(codes(federation, ME)) == {"ledger"}
    assert federation.sites[ME].trainer.trained.total() == trained
    rows = [e.site for e in federation.journal() if (e.round, e.step) == (3, "update")]
    assert sorted(rows) == ["site-1", "site-3"]


def test_restored_machine_writes_nothing_over_the_gap() -> None:
    federation = federated()
    put_back(federation.sites[ME], after_two_rounds(federation))
    federation.sites[ME].half()
    before = federation.sites[ME].records()
    federation.lead("agg-2")
    assert federation.sites[ME].records() == before


def test_restored_machine_stays_refused_after_another_start() -> None:
    federation = federated()
    put_back(federation.sites[ME], after_two_rounds(federation))
    with pytest.raises(Died):
        federation.lead("agg-2", Until("agg-2", "head"))
    first = len(codes(federation, ME))
    assert first
    federation.sites[ME].die()
    federation.lead("agg-1")
    assert len(codes(federation, ME)) > first
    assert set(codes(federation, ME)) == {"ledger"}


def test_the_longest_ledger_put_back_is_served_again() -> None:
    federation = federated()
    backup = after_two_rounds(federation)
    site = federation.sites[ME]
    longest = snapshot(site)
    put_back(site, backup)
    put_back(site, longest)
    federation.lead("agg-2")
    assert codes(federation, ME) == []
    assert [site.reservations(n) for n in (1, 2, 3)] == [1, 1, 1]


def test_clone_that_writes_as_many_lines_is_refused() -> None:
    federation = federated()
    backup = after_two_rounds(federation)
    site = federation.sites[ME]
    length = len(site.records())
    put_back(site, backup)
    ledger = site.half()._ledger
    while ledger.head.seq < length + 5:
        ledger.append("node.started", ME)
    federation.lead("agg-2")
    assert set(codes(federation, ME)) == {"ledger"}


def test_ledger_alone_put_back_does_not_start() -> None:
    federation = federated()
    _, ledger = after_two_rounds(federation)
    site = federation.sites[ME]
    put_back(site, (snapshot(site)[0], ledger))
    with pytest.raises(LedgerCorrupt, match=r"lines \d+ to \d+ are missing"):
        site.half()


def test_successor_on_another_machine_knows_the_heads_from_the_journal() -> None:
    federation = federated()
    backup = after_two_rounds(federation)
    federation.disks["agg-2"] = FakeDisk()
    put_back(federation.sites[ME], backup)
    federation.lead("agg-2")
    assert set(codes(federation, ME)) == {"ledger"}


def test_the_next_run_knows_the_heads_from_the_aggregator_s_ledger() -> None:
    federation = federated()
    backup = after_two_rounds(federation)
    put_back(federation.sites[ME], backup)
    leader = replace(federation.leader("agg-1"), terms=another_run(federation))
    assert read_heads(Heads(leader).document())[ME].seq > len(
        federation.sites[ME].records()
    )


def another_run(federation: Federation) -> Terms:
    return replace(federation.terms, run="run-2")


def test_an_aggregator_that_forgot_everything_hears_it_from_other_sites() -> None:
    federation = federated()
    backup = after_two_rounds(federation)
    # Round 3 shows the heads of round 2 to all; then every aggregator is lost.
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal close"))
    witness = federation.sites["site-3"]
    assert any(r.action == SEEN and ME in r.detail for r in witness.records())
    put_back(federation.sites[ME], backup)
    nothing: dict[str, JSON] = {HEADS: {}}
    witness.half()._witness.meet(asked("site-3", nothing))
    new = KnownHeads(lambda name: federation.signing(name).public)
    new.take(read_heads(witness.half()._witness.document()).values())
    facts: dict[str, JSON] = {HEADS: heads_document(new.longer_than({}))}
    with pytest.raises(LedgerCorrupt, match="are missing"):
        federation.sites[ME].half()._witness.meet(asked(ME, facts))


def test_restored_custodian_makes_no_key_and_the_next_one_does() -> None:
    federation = federated()
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "head"))
    backup = snapshot(federation.sites["site-1"])
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal publish"))
    federation.state = State(federation.clock)  # a run begins anew
    federation.state.term = 10
    put_back(federation.sites["site-1"], backup)
    before = len(federation.sites["site-1"].records())
    with suppress(FedsecureError):
        federation.lead("agg-1")
    began = [f["custodian"] for event, f in federation.notes.events if event == "began"]
    assert began == ["site-1", "site-2"]
    assert len(federation.sites["site-1"].records()) == before


def test_with_no_witness_and_no_outbox_left_nothing_can_tell() -> None:
    # What is promised ends here: it takes all aggregators, all other sites and the
    # site's own outbox to forget together (docs/adr/0019).
    federation = federated()
    put_back(federation.sites[ME], after_two_rounds(federation))
    facts: dict[str, JSON] = {HEADS: {}}
    federation.sites[ME].half()._witness.meet(asked(ME, facts))


def asked(site: str, header: Mapping[str, JSON]) -> Verified:
    scope = Scope(RoundId("run-1", 3), site, b"", b"", b"")
    return Verified(Kind.REQUEST, scope, header, b"", "agg-9", b"")
