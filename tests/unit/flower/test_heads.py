"""What an aggregator remembers of the sites' ledgers, and where it keeps it."""

import json

import pytest

from fedsecure.envelope import parse
from fedsecure.flower.beginning import begin
from fedsecure.flower.heads import Heads
from fedsecure.flower.letters import Letters
from fedsecure.metadata import JournalEntry, Step
from fedsecure.receipts import (
    HEADS,
    ROWS_A_LINE,
    SEEN,
    SignedHead,
    read_heads,
)
from fedsecure.server_round import read_detail
from tests.fakes.disk import FakeDisk
from tests.fakes.federation import MAX_BYTES, RUN, Federation, _ledger
from tests.fakes.fuses import Died, Until
from tests.fakes.metadata import State

ME = "site-2"


@pytest.fixture
def finished() -> Federation:
    federation = Federation()
    federation.lead()
    return federation


def head(federation: Federation, seq: int, site: str = ME) -> SignedHead:
    return SignedHead.make(site, seq, bytes(32), federation.signing(site))


def known(heads: Heads) -> dict[str, int]:
    return {site: h.seq for site, h in read_heads(heads.document()).items()}


def length(federation: Federation, site: str) -> int:
    return len(federation.sites[site].records())


def test_at_the_end_of_a_run_every_site_s_last_head_is_known(
    finished: Federation,
) -> None:
    found = known(Heads(finished.leader("agg-1")))
    assert found == {s: length(finished, s) for s in finished.sites}


def test_heads_are_in_the_update_s_row(finished: Federation) -> None:
    for entry in finished.journal():
        if entry.step == Step.UPDATE:
            found = read_heads(read_detail(entry)[HEADS])
            assert found[entry.site].is_by(finished.signing(entry.site).public)


def test_a_successor_without_a_ledger_of_its_own_reads_them_from_the_rows() -> None:
    federation = Federation()
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "head"))
    federation.disks["agg-2"] = FakeDisk()
    assert set(known(Heads(federation.leader("agg-2")))) == set(federation.sites)


def test_another_run_reads_them_from_the_ledger(finished: Federation) -> None:
    finished.state = State(finished.clock)
    assert set(known(Heads(finished.leader("agg-1")))) == set(finished.sites)
    assert known(Heads(finished.leader("agg-2"))) == {}


def test_what_is_taken_is_in_the_ledger_once_it_is_kept(finished: Federation) -> None:
    heads = Heads(finished.leader("agg-2"))
    heads.take([head(finished, 90)])
    heads.keep()
    heads.keep()
    key = finished.signing("agg-2")
    disk = finished.disks["agg-2"].restart()
    lines = _ledger(disk, "agg-2", key, finished.clock).records()
    kept = [r for r in lines if r.action == SEEN and ME in r.detail]
    assert [read_heads(dict(r.detail))[ME].seq for r in kept] == [90]


def test_many_heads_are_several_lines(finished: Federation) -> None:
    leader = finished.leader("agg-1")
    heads = Heads(leader)
    before = len(leader.tools.ledger.records())
    some = {f"s{i}": head(finished, 5, f"s{i}") for i in range(2 * ROWS_A_LINE + 1)}
    heads._unkept = some
    heads.keep()
    assert len(leader.tools.ledger.records()) == before + 3


def test_a_head_its_site_did_not_sign_is_not_passed_on(finished: Federation) -> None:
    heads = Heads(finished.leader("agg-1"))
    before = known(heads)
    forged = SignedHead.make(ME, 500, bytes(32), finished.signing("site-1"))
    heads.take([forged])
    assert known(heads) == before


def test_every_letter_shows_what_is_known(finished: Federation) -> None:
    leader = finished.leader("agg-1")
    letters = Letters(leader, begin(leader, None))
    letters.heads.take([head(finished, 70, "site-3")])
    letter = parse(letters.request(ME, 3, train=False)(), MAX_BYTES)
    shown = json.loads(letter.header)[HEADS]
    assert shown == letters.heads.document()
    assert read_heads(shown)["site-3"].seq == 70
    assert set(shown) == set(finished.sites)


def test_rows_from_before_heads_were_kept_are_read() -> None:
    leader = Federation(rounds=1).leader("agg-1")
    row = JournalEntry(RUN, 1, Step.UPDATE, ME, "operation", b'{"metrics":{}}')
    leader.write(row)
    assert known(Heads(leader)) == {}
