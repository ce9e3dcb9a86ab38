"""A site's ledger against what others remember of it, before anything is paid."""

from collections.abc import Mapping

import pytest

from fedsecure.envelope import Kind, Scope, Verified, parse
from fedsecure.errors import ClockBehind, LedgerCorrupt, VerificationError
from fedsecure.ledger import LedgerHead, Record
from fedsecure.receipts import HEADS, SEEN, SignedHead, heads_document, read_heads
from fedsecure.update import JSON, RoundId
from fedsecure.witness import (
    CLOCK_BOUND,
    CLOCK_SET,
    Witness,
    check_head,
    check_outbox,
)
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.federation import LEDGER, MAX_BYTES, Federation, Site, _ledger
from tests.fakes.forgery import code_of

ME = "site-2"
"""Trained in two rounds by `finished`; the aggregators have its heads."""


@pytest.fixture
def finished() -> Federation:
    federation = Federation()
    federation.lead()
    return federation


def request(federation: Federation, header: Mapping[str, JSON]) -> Verified:
    scope = Scope(RoundId("run-1", 9), ME, b"", b"", b"")
    return Verified(Kind.REQUEST, scope, header, b"", "agg-1", b"")


def witness(federation: Federation) -> Witness:
    return federation.sites[ME].half()._witness


def head_of(federation: Federation, site: str, seq: int | None = None) -> SignedHead:
    """Return a head as its site signed it when its ledger had `seq` lines."""
    records = federation.sites[site].records()
    last = records[-1 if seq is None else seq - 1]
    digest = bytes.fromhex(last.hash)
    return SignedHead.make(site, last.seq, digest, federation.signing(site))


def meet(federation: Federation, *heads: SignedHead) -> None:
    facts: dict[str, JSON] = {HEADS: heads_document(heads)}
    witness(federation).meet(request(federation, facts))


def cut(site: Site, lines: int) -> None:
    """Put a backup of the ledger back, from when it had `lines` lines."""
    site.die()
    data = site.disk.durable[LEDGER].splitlines(keepends=True)[:lines]
    site.disk.durable[LEDGER] = site.disk.cached[LEDGER] = b"".join(data)


def actions(federation: Federation) -> list[str]:
    return [r.action for r in federation.sites[ME].records()]


# --- the own head ---------------------------------------------------------------------


def test_the_own_last_head_is_no_reason_to_stop(finished: Federation) -> None:
    meet(finished, head_of(finished, ME))
    witness(finished).require()


def test_an_older_own_head_is_no_reason_to_stop(finished: Federation) -> None:
    meet(finished, head_of(finished, ME, 3))
    witness(finished).require()


def test_an_older_ledger_than_a_head_stops_the_site(finished: Federation) -> None:
    head = head_of(finished, ME)
    finished.sites[ME].store.objects.clear()
    cut(finished.sites[ME], 8)
    with pytest.raises(LedgerCorrupt) as stopped:
        meet(finished, head)
    said = str(stopped.value)
    assert "it ends at line 8, aggregator 'agg-1' keeps its signed head" in said
    assert f"lines 9 to {head.seq} are missing" in said
    assert "fedsecure ledger verify" in said


def test_another_line_in_its_place_stops_the_site(finished: Federation) -> None:
    other = SignedHead.make(ME, 8, bytes(32), finished.signing(ME))
    with pytest.raises(LedgerCorrupt, match=r"line 8 is \w{12} here and 000000000000"):
        meet(finished, other)


def test_nothing_is_written_into_a_ledger_that_is_too_short(
    finished: Federation,
) -> None:
    heads = head_of(finished, ME), head_of(finished, "site-1")
    finished.sites[ME].store.objects.clear()
    cut(finished.sites[ME], 8)
    finished.sites[ME].half()
    before = actions(finished)
    with pytest.raises(LedgerCorrupt):
        meet(finished, *heads)
    assert actions(finished) == before


def test_a_head_that_somebody_else_signed_is_no_reason_to_stop(
    finished: Federation,
) -> None:
    forged = SignedHead.make(ME, 99, bytes(32), finished.signing("site-1"))
    meet(finished, forged)


@pytest.mark.parametrize("heads", [None, [], {"site-2": [1]}])
def test_heads_that_are_none_are_refused(finished: Federation, heads: JSON) -> None:
    with pytest.raises(VerificationError):
        witness(finished).meet(request(finished, {HEADS: heads}))


# --- no witness, no reservation -------------------------------------------------------


def test_after_a_start_nothing_is_reserved_before_a_witness_is_met(
    finished: Federation,
) -> None:
    finished.sites[ME].die()
    with pytest.raises(LedgerCorrupt, match="nothing is reserved before a request"):
        witness(finished).require()


def test_a_request_without_heads_is_no_witness(finished: Federation) -> None:
    meet(finished)
    witness(finished).meet(request(finished, {}))
    with pytest.raises(LedgerCorrupt, match="nobody said how long"):
        witness(finished).require()


def test_an_aggregator_that_knows_nothing_yet_is_a_witness(
    finished: Federation,
) -> None:
    meet(finished)
    witness(finished).require()


# --- receipts -------------------------------------------------------------------------


def receipts(federation: Federation) -> list[Record]:
    lines = federation.sites[ME].records()
    return [r for r in lines if r.action == "budget.receipt"]


def test_a_head_that_came_back_is_recorded_with_commit_aggregator_and_head(
    finished: Federation,
) -> None:
    lines = finished.sites[ME].records()
    for number, receipt in enumerate(receipts(finished), start=1):
        answer = [r for r in lines if (r.action, r.round) == ("budget.commit", number)]
        made = [r for r in lines if (r.action, r.round) == ("budget.reserve", number)]
        assert receipt.detail == {
            "commit": answer[0].seq,
            "aggregator": "agg-1",
            "head": {"seq": made[0].seq, "hash": made[0].hash},
        }


def test_every_round_has_one_receipt(finished: Federation) -> None:
    assert len(receipts(finished)) == 2
    meet(finished, head_of(finished, ME))
    assert len(receipts(finished)) == 2


# --- others' heads --------------------------------------------------------------------


def test_others_heads_are_kept_and_survive_the_process(finished: Federation) -> None:
    longest = head_of(finished, "site-3")
    meet(finished, longest)
    finished.sites[ME].die()
    meet(finished)
    assert read_heads(witness(finished).document())["site-3"] == longest


def test_others_heads_that_the_request_has_are_not_sent_back(
    finished: Federation,
) -> None:
    heads = [head_of(finished, s) for s in ("site-1", "site-3")]
    meet(finished, *heads)
    assert set(witness(finished).document()) == {ME}


def test_another_site_s_forged_head_is_not_kept(finished: Federation) -> None:
    before = actions(finished).count(SEEN)
    meet(finished, SignedHead.make("site-3", 99, bytes(32), finished.signing(ME)))
    assert actions(finished).count(SEEN) == before


def test_the_own_head_in_an_answer_is_the_ledger_s(finished: Federation) -> None:
    ledger = finished.sites[ME].half()._ledger
    found = read_heads(witness(finished).document())[ME]
    assert ledger.head == LedgerHead(ME, found.seq, found.hash.hex())
    assert found.is_by(finished.signing(ME).public)


# --- the clock ------------------------------------------------------------------------


def test_a_clock_within_the_bound_is_borne_with(finished: Federation) -> None:
    finished.clock.jump_wall(-CLOCK_BOUND.total_seconds() + 1)
    meet(finished)


def test_a_clock_gone_back_stops_the_site(finished: Federation) -> None:
    finished.clock.jump_wall(-CLOCK_BOUND.total_seconds() - 1)
    with pytest.raises(
        ClockBehind, match=r"more than 300 s back.*ledger clock --kit KIT"
    ):
        meet(finished)


def test_a_clock_that_was_back_at_the_start_stops_the_site(
    finished: Federation,
) -> None:
    finished.clock.jump_wall(-86_400)
    finished.sites[ME].die()
    half = finished.sites[ME].half()
    half._ledger.append("node.started", ME)
    with pytest.raises(ClockBehind):
        meet(finished)


def test_times_count_anew_from_an_operator_s_word(finished: Federation) -> None:
    finished.clock.jump_wall(-86_400)
    finished.sites[ME].die()
    finished.sites[ME].half()._ledger.append(CLOCK_SET, ME)
    finished.sites[ME].die()
    meet(finished)
    finished.clock.jump_wall(-3600)
    with pytest.raises(ClockBehind):
        meet(finished)


def test_a_clock_gone_back_is_refused_by_name_and_nothing_is_written(
    finished: Federation,
) -> None:
    letters: list[bytes] = []
    answer = finished.sites[ME].answer

    def keep(data: bytes) -> bytes:
        letters.append(data)
        return answer(data)

    finished.sites[ME].answer = keep  # type: ignore[method-assign]
    finished.lead("agg-2")
    before = actions(finished)
    finished.clock.jump_wall(-3600)
    assert code_of(answer(letters[-1])) == "clock"
    assert actions(finished) == before


# --- the outbox as a witness ----------------------------------------------------------


def test_a_ledger_put_back_alone_is_found_at_start(finished: Federation) -> None:
    cut(finished.sites[ME], 8)
    with pytest.raises(LedgerCorrupt, match=r"the outbox of run 'run-1', round 2,"):
        finished.sites[ME].half()


def test_a_ledger_that_is_whole_starts(finished: Federation) -> None:
    finished.sites[ME].die()
    finished.sites[ME].half()


def test_update_in_the_outbox_says_how_long_the_ledger_was(
    finished: Federation,
) -> None:
    kept = finished.sites[ME].shelf().answer(2)
    assert kept is not None
    envelope = parse(kept.outgoing.to_bytes(), MAX_BYTES)
    assert b'"heads":{"site-2":[' in envelope.header
    made = [r for r in finished.sites[ME].records() if r.action == "budget.reserve"]
    assert f"[{made[-1].seq}," in envelope.header.decode()


def test_check_head_and_outbox_pass_a_new_site() -> None:
    federation = Federation()
    me = federation.sites[ME].half()._me
    ledger = _ledger(FakeDisk(), ME, federation.signing(ME), FakeClock())
    check_outbox(ledger, federation.sites[ME].store, me)
    head = SignedHead.make(ME, 1, bytes.fromhex(ledger.head.hash), me.signing)
    check_head(ledger, head, "a test")
