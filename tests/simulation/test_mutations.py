"""The checks of this folder can fail: each rule taken out of the code is noticed.

A rule is taken out with monkeypatch, and a scenario of the tests beside this file says
what is wrong then; without a mutation the same scenario says that nothing is.
"""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import pytest

from fedsecure import shelf
from fedsecure.checkpoint.roundkey import RoundKey
from fedsecure.checkpoint.vault import Vault
from fedsecure.client_admission import Admitted
from fedsecure.client_charges import Charges
from fedsecure.client_door import Door
from fedsecure.client_round import ClientRound
from fedsecure.client_run import ClientRun
from fedsecure.envelope import Envelope, Kind, Verified, parse, verify
from fedsecure.errors import FedsecureError, Refused, SecondAggregate
from fedsecure.flower.beginning import begin
from fedsecure.flower.driver import RoundDriver
from fedsecure.flower.leader import Leader
from fedsecure.flower.letters import Letters
from fedsecure.metadata import JournalEntry, Step
from fedsecure.onesum import OneSum, Own
from fedsecure.outgoing import Bytes
from fedsecure.release import Release
from fedsecure.running_sum import RunningSum
from fedsecure.server_round import Accepted, Rejected, ServerRound
from fedsecure.shelf import Kept, Sealing, Shelf
from fedsecure.trainer import TrainingResult
from tests.fakes import metadata
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import release_over
from tests.fakes.fuses import Died, Fuse, FusedStore
from tests.fakes.history import violations


def crashed(step: int, *, private: bool = True) -> list[str]:
    """Return what is wrong after a leader died and another went on."""
    federation = Federation(private=private)
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=step))
    try:
        federation.lead("agg-2")
    except FedsecureError as stopped:
        return [f"the successor ends: {stopped}"]
    twice = [
        f"{name} trained round {number} {times} times"
        for name, site in federation.sites.items()
        for number, times in site.trainer.trained.items()
        if times > 1
    ]
    return [*violations(federation), *twice]


def superseded() -> list[str]:
    """Return what an old leader does that does not notice its successor."""
    federation = Federation()

    def follow() -> None:
        federation.leader("agg-2")

    fuse = Fuse("agg-1", pause=(6, follow))
    try:
        federation.lead("agg-1", fuse, lambda: None)
    except FedsecureError:
        return []
    return ["the old leader went on under its old term"]


def asked_by_old_term() -> list[str]:
    """Return what a site does with a request under an older term."""
    federation = Federation(rounds=1)
    old = federation.leader("agg-1", check=lambda: None)
    federation.lead("agg-2")
    letter = Letters(old, begin(old, None)).request("site-1", 2, train=False)()
    answer = parse(federation.sites["site-1"].answer(letter), MAX_BYTES)
    return [] if answer.kind == Kind.REFUSAL else ["it answers an older term"]


def offered_twice() -> list[str]:
    """Return what a site does with a second release of a round."""
    federation = Federation(rounds=1, min_contributors=2)
    federation.lead()
    half = federation.sites["site-1"].half()
    try:
        half.recover(release_over(federation, ["site-1", "site-2"], 1))
    except Refused:
        return []
    return ["a second sum of round 1 was opened"]


def test_nothing_is_wrong_without_a_mutation() -> None:
    assert crashed(8) + crashed(10) + crashed(8, private=False) == []
    assert superseded() + asked_by_old_term() + offered_twice() == []


def test_journal_that_compares_no_terms_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata.FakeJournal, "_compare", lambda *_: None)
    assert superseded() != []


def test_site_that_compares_no_terms_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def any_term(self: Door, envelope: Envelope) -> Verified:
        signer = self._peers.aggregator(envelope.signer)
        request = verify(envelope, signer, kinds=(Kind.BEGIN_REQUEST, Kind.REQUEST))
        self._witness.meet(request)
        return request

    monkeypatch.setattr(Door, "checked", any_term)
    assert asked_by_old_term() != []


def test_update_that_counts_without_a_row_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = Leader.write

    def forgetful(self: Leader, *entries: JournalEntry) -> None:
        if all(entry.step != Step.UPDATE for entry in entries):
            write(self, *entries)

    monkeypatch.setattr(Leader, "write", forgetful)
    assert crashed(12) != []


def test_row_before_its_bytes_are_kept_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep, write = Vault.keep, Leader.write
    later: list[tuple[Vault, str, Bytes, RoundKey | None]] = []

    def postpone(
        self: Vault, name: str, data: Bytes, key: RoundKey | None = None
    ) -> None:
        if name.startswith("update/"):
            later.append((self, name, data, key))
        else:
            keep(self, name, data, key)

    def row_first(self: Leader, *entries: JournalEntry) -> None:
        write(self, *entries)
        while later:
            keep(*later.pop())

    monkeypatch.setattr(Vault, "keep", postpone)
    monkeypatch.setattr(Leader, "write", row_first)
    assert crashed(8) != []


def test_update_that_is_added_twice_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add = RunningSum.add

    def twice(self: RunningSum, summand: object) -> None:
        add(self, summand)  # type: ignore[arg-type]
        add(self, summand)  # type: ignore[arg-type]

    monkeypatch.setattr(RunningSum, "add", twice)
    assert crashed(8) != []


def test_close_without_a_row_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RoundDriver, "_close", lambda *_: None)
    assert crashed(8) != []


def test_training_before_reserving_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve, protect = Charges.training, ClientRound.protect

    def late(self: ClientRound, admitted: Admitted, result: TrainingResult) -> Kept:
        plan, charges = admitted.run.plan, self._charges
        paid = reserve(charges, plan, admitted.round, admitted.layout, 50)
        return protect(self, replace(admitted, reservations=paid), result)

    monkeypatch.setattr(Charges, "training", lambda *_: ())
    monkeypatch.setattr(ClientRound, "protect", late)
    assert [line for line in crashed(8) if "unpaid" in line] != []


def test_training_without_reserving_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Charges, "training", lambda *_: ())
    assert [line for line in crashed(8) if "paid 0" in line] != []


@pytest.mark.parametrize("private", [True, False])
def test_request_that_skips_the_outbox_is_noticed(
    monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    answer, admit = Shelf.answer, ClientRound.admit

    def blind(self: ClientRound, request: Verified, rows: int) -> Admitted | Kept:
        with monkeypatch.context() as inner:
            inner.setattr(Shelf, "answer", lambda *_: None)
            return admit(self, request, rows)

    monkeypatch.setattr(ClientRound, "admit", blind)
    assert crashed(8, private=private) != []
    assert Shelf.answer is answer


def crashed_site(step: int) -> list[str]:
    """Return what is wrong after a site died while it wrote an answer of two pieces."""
    federation = Federation()
    federation.sites["site-2"].fuse = Fuse("site-2", dies_after=step)
    try:
        federation.lead()
    except FedsecureError as stopped:
        return [f"the run ends: {stopped}"]
    return violations(federation)


FIRST_PIECE, HEAD = 12, 14  # durable steps of a site that is not the custodian


def echoed() -> list[str]:
    """Return what is wrong after every answer arrived twice."""
    federation = Federation()
    federation.echoes = lambda _: True
    try:
        federation.lead()
    except FedsecureError as stopped:
        return [f"the run ends: {stopped}"]
    return violations(federation)


def test_nothing_is_wrong_after_echoes_without_a_mutation() -> None:
    assert echoed() == []


def test_leader_that_takes_a_repeat_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = ServerRound.accept

    def forgetful(
        self: ServerRound, envelope: Envelope, now: float
    ) -> Accepted | Rejected:
        known = self._taken.pop(envelope.signer, None)
        verdict = accept(self, envelope, now)
        if known is not None:
            self._taken[envelope.signer] = known
        return verdict

    monkeypatch.setattr(ServerRound, "accept", forgetful)
    assert [line for line in echoed() if "written before" in line] != []
    # Without the journal's own uniqueness too, the sum itself is wrong.
    monkeypatch.setattr(metadata, "_add", list.append)
    assert echoed() != []


@pytest.mark.parametrize("lying", [False, True])
def test_ledger_without_fsync_is_noticed(*, lying: bool) -> None:
    federation = Federation()
    site = federation.sites["site-2"]
    site.disk.lying = lying
    site.fuse = Fuse("site-2", dies_after=HEAD)  # the answer is in the outbox
    try:
        federation.lead()
        wrong = bool(violations(federation))
    except FedsecureError:
        wrong = True
    assert wrong == lying


@pytest.fixture
def two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "PIECE_BYTES", 20_000)


@pytest.mark.usefixtures("two_pieces")
def test_nothing_is_wrong_after_a_piece_without_a_mutation() -> None:
    federation = Federation()
    federation.lead()
    names = federation.sites["site-2"].fuse.names
    written = [names[FIRST_PIECE - 1], names[HEAD - 1]]
    assert written == ["put run-1/body/1/0", "put run-1/out/1"]
    assert crashed_site(FIRST_PIECE) + crashed_site(HEAD) == []


@pytest.mark.usefixtures("two_pieces")
def test_head_before_its_body_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def head_first(
        self: Shelf, number: int, chunks: Iterable[Bytes], seal: Sealing
    ) -> Kept:
        body = b"".join(chunks)
        head = seal(len(body), hashlib.sha256(body).hexdigest())
        pieces = [body[:20_000], body[20_000:]]
        tail = len(pieces).to_bytes(4, "little")
        self.store.put(f"{self.run}/out/{number}", head.to_bytes() + tail)
        for i, piece in enumerate(pieces):
            self.store.put(f"{self.run}/body/{number}/{i}", piece)
        kept = self.answer(number)
        assert kept is not None
        return kept

    monkeypatch.setattr(Shelf, "keep_answer", head_first)
    assert crashed_site(FIRST_PIECE) != []


@pytest.mark.usefixtures("two_pieces")
def test_leftover_pieces_that_stay_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    delete = FusedStore.delete

    def keep_bodies(self: FusedStore, key: str) -> None:
        if "/body/" not in key:
            delete(self, key)

    monkeypatch.setattr(FusedStore, "delete", keep_bodies)
    assert crashed_site(FIRST_PIECE) != []


def test_site_that_opens_a_second_sum_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_open = OneSum.open

    def lenient(
        self: OneSum, run: ClientRun, release: Release, own: Own, term: int
    ) -> None:
        with suppress(SecondAggregate):
            may_open(self, run, release, own, term)

    monkeypatch.setattr(OneSum, "open", lenient)
    assert offered_twice() != []
