"""What a leader does with sites that answer badly, late, twice or not at all."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fedsecure import ciphertext
from fedsecure.ciphertext import Ciphertext
from fedsecure.envelope import Kind, parse
from fedsecure.errors import QuorumNotMet, TrainingFailed, VerificationError
from fedsecure.flower.driver import ASKS_ALLOWED
from fedsecure.metadata import Step
from fedsecure.trainer import JSON, TrainingTask
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import altered
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import heads, violations


def rejected(federation: Federation) -> list[tuple[JSON, JSON]]:
    """Return (site, code) of every answer that did not count."""
    notes = (fields for event, fields in federation.notes.events if event == "rejected")
    return [(fields["site"], fields["code"]) for fields in notes]


def told(federation: Federation, event: str) -> list[JSON]:
    """Return the rounds an event was told of."""
    return [f["round"] for name, f in federation.notes.events if name == event]


def first_update(
    federation: Federation, change: Callable[[bytes], bytes]
) -> Callable[[str, bytes], bytes]:
    """Return a tampering with the first update of site-2 only."""
    done: list[bool] = []

    def tamper(site: str, data: bytes) -> bytes:
        if site != "site-2" or done or parse(data, MAX_BYTES).kind != Kind.UPDATE:
            return data
        done.append(True)
        return change(data)

    _ = federation
    return tamper


def test_run_without_trouble_rejects_nothing() -> None:
    federation = Federation()
    federation.lead()
    assert rejected(federation) == []
    assert told(federation, "released") == [1, 2]
    assert told(federation, "published") == [1, 2]


@pytest.mark.parametrize("field", ["key_id", "layout", "plan"])
def test_update_for_another_scope_is_refused_and_asked_again(field: str) -> None:
    federation = Federation()
    federation.tamper = first_update(
        federation, lambda d: altered(federation, d, scope={field: b"x" * 32})
    )
    federation.lead()
    assert rejected(federation) == [("site-2", "verification")]
    assert violations(federation) == []


def _other_key(data: bytes) -> Ciphertext:
    envelope = parse(data, MAX_BYTES)
    found = ciphertext.from_bytes(
        envelope.body, key_id=envelope.scope.key_id, max_summands=1
    )
    return Ciphertext(b"z" * 16, found.modulus, found.residues, found.seeds, 1)


def test_ciphertext_for_another_key_in_a_good_envelope_is_refused() -> None:
    federation = Federation()
    federation.tamper = first_update(
        federation,
        lambda d: altered(federation, d, body=ciphertext.to_bytes(_other_key(d))),
    )
    federation.lead()
    assert rejected(federation) == [("site-2", "verification")]
    assert violations(federation) == []


def _doubled(data: bytes) -> bytes:
    """Return a body that is a good ciphertext, of twice the blocks."""
    envelope = parse(data, MAX_BYTES)
    key_id = envelope.scope.key_id
    found = ciphertext.from_bytes(envelope.body, key_id=key_id, max_summands=1)
    twice = np.concatenate([found.residues, found.residues])
    return ciphertext.to_bytes(Ciphertext(key_id, found.modulus, twice, (), 1))


def test_first_answer_of_another_form_does_not_lock_the_honest_out() -> None:
    federation = Federation(rounds=1)
    done: list[str] = []

    def tamper(site: str, data: bytes) -> bytes:
        if done or parse(data, MAX_BYTES).kind != Kind.UPDATE:
            return data
        done.append(site)
        return altered(federation, data, body=_doubled(data))

    federation.tamper = tamper
    federation.lead()
    assert rejected(federation) == [(done[0], "verification")]
    assert told(federation, "released") == [1]
    assert violations(federation) == []


def test_custodian_whose_beginning_lacks_a_part_is_followed_by_the_next() -> None:
    federation = Federation(rounds=1, min_contributors=2, deadline=5.0)

    def tamper(site: str, data: bytes) -> bytes:
        if site != "site-1" or parse(data, MAX_BYTES).kind != Kind.BEGIN:
            return data
        return altered(federation, data, header={"parts": []}, body=b"")

    federation.tamper = tamper
    federation.lead()
    began = [f for name, f in federation.notes.events if name == "began"]
    assert [f["custodian"] for f in began] == ["site-2"]


def test_body_that_is_no_ciphertext_is_refused() -> None:
    federation = Federation()
    federation.tamper = first_update(
        federation, lambda d: altered(federation, d, body=b"\0" * 64)
    )
    federation.lead()
    assert rejected(federation) == [("site-2", "verification")]
    assert violations(federation) == []


def test_garbage_from_a_site_is_refused_and_asked_again() -> None:
    federation = Federation()
    federation.tamper = first_update(federation, lambda _: b"garbage" * 40)
    federation.lead()
    assert rejected(federation) == [("site-2", "verification")]
    assert violations(federation) == []


def test_site_that_always_answers_badly_is_asked_five_times_and_left_out() -> None:
    federation = Federation(rounds=1, min_contributors=2)

    def tamper(site: str, data: bytes) -> bytes:
        return b"garbage" * 40 if site == "site-3" else data

    federation.tamper = tamper
    federation.lead()
    assert rejected(federation) == [("site-3", "verification")] * ASKS_ALLOWED
    assert told(federation, "released") == [1]


@pytest.mark.parametrize("code", ["policy", "budget"])
def test_site_that_refuses_is_left_out_and_the_run_goes_on(code: str) -> None:
    federation = Federation(min_contributors=2)
    if code == "policy":
        federation.sites["site-3"].gate.refuses = "no"
    else:
        federation.sites["site-3"].max_epsilon = 0.5
    federation.lead()
    # The last one is its answer to the request to evaluate, or none.
    assert set(rejected(federation)) == {("site-3", code)}
    assert told(federation, "released") == [1, 2]
    assert federation.sites["site-3"].trainer.trained.total() == 0


def test_budget_that_ends_in_mid_run_skips_the_rounds_and_ends_clearly() -> None:
    federation = Federation(rounds=5)
    federation.sites["site-1"].max_epsilon = 1.0
    with pytest.raises(QuorumNotMet, match="3 rounds up to 4 had fewer than 3"):
        federation.lead()
    assert told(federation, "skipped") == [2, 3, 4]
    assert federation.sites["site-1"].trainer.trained == {1: 1}


def test_run_in_which_no_round_is_completed_ends_clearly() -> None:
    federation = Federation(rounds=2)
    federation.sites["site-2"].gate.refuses = "no"
    with pytest.raises(QuorumNotMet, match="without a single completed round"):
        federation.lead()


def test_successor_of_a_hopeless_run_ends_as_clearly() -> None:
    federation = Federation(rounds=2)
    federation.sites["site-2"].gate.refuses = "no"
    for name in ("agg-1", "agg-2"):
        with pytest.raises(QuorumNotMet):
            federation.lead(name)


def test_silent_site_is_waited_for_until_the_deadline_only() -> None:
    federation = Federation(rounds=1, min_contributors=2, deadline=20.0)
    begin = federation.clock.now()
    federation.tamper = lambda site, data: None if site == "site-3" else data
    federation.lead()
    assert told(federation, "released") == [1]
    assert 20.0 <= federation.clock.now() - begin < 60.0


def test_skipped_round_leaves_no_update_behind() -> None:
    federation = _never(Federation(rounds=2))
    with pytest.raises(QuorumNotMet):
        federation.lead()
    for store in federation.stores:
        assert [k for k in store.objects if k.startswith("update/")] == []


def _never(federation: Federation) -> Federation:
    federation.sites["site-3"].gate.refuses = "no"
    return federation


def skips(federation: Federation) -> list[int]:
    return [e.round for e in federation.journal() if e.step == Step.SKIP]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_leader_that_dies_over_a_skip_leaves_no_update_behind(after: int) -> None:
    federation = _never(Federation(rounds=2))
    counted = Fuse("agg-1")
    with pytest.raises(QuorumNotMet):
        _never(Federation(rounds=2)).lead("agg-1", counted)
    at = counted.names.index("journal skip") + after
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=at))
    with pytest.raises(QuorumNotMet):
        federation.lead("agg-2")
    assert skips(federation) == [1, 2]
    for store in federation.stores:
        assert [k for k in store.objects if k.startswith("update/")] == []


def test_round_after_a_skipped_one_builds_on_the_last_release() -> None:
    federation = Federation(rounds=3)

    def fail(task: TrainingTask) -> None:
        if task.train and task.round.number == 2:
            raise TrainingFailed("out of memory")

    federation.sites["site-1"].trainer.before = fail
    federation.lead()
    assert skips(federation) == [2]
    assert rejected(federation) == [("site-1", "training_failed")]
    vault = federation.vault("agg-1")
    releases = [vault.verify_release(head) for head in heads(federation)]
    assert [(r.round.number, r.after) for r in releases] == [(1, 0), (3, 1)]
    assert len(set(federation.models().values())) == 1


def test_stored_update_that_was_changed_stops_the_successor() -> None:
    federation = Federation()
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=11))
    for store in federation.stores:
        for key in store.objects:
            if key.startswith("update/"):
                store.flip(key)
    with pytest.raises(VerificationError):
        federation.lead("agg-2")


def test_successor_notes_what_it_reuses() -> None:
    federation = Federation()
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=11))
    federation.lead("agg-2")
    notes = [f for name, f in federation.notes.events if name == "resumed"]
    assert [f["reused"] for f in notes] == [["site-1"]]


def test_successor_asks_only_the_missing_sites() -> None:
    federation = Federation()
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=15))
    asked = list[str]()

    def tamper(site: str, data: bytes) -> bytes:
        if parse(data, MAX_BYTES).scope.round.number == 1:
            asked.append(site)
        return data

    federation.tamper = tamper
    federation.lead("agg-2")
    assert asked == ["site-3"]


def test_custodian_that_is_silent_is_followed_by_the_next() -> None:
    federation = Federation(rounds=1, min_contributors=2, deadline=5.0)
    federation.tamper = lambda site, data: None if site == "site-1" else data
    federation.lead()
    began = [f for name, f in federation.notes.events if name == "began"]
    assert [f["custodian"] for f in began] == ["site-2"]


def test_run_whose_custodians_are_all_silent_ends_clearly() -> None:
    federation = Federation(deadline=5.0)
    federation.tamper = lambda *_: None
    with pytest.raises(QuorumNotMet, match="no custodian site of site-1, site-2"):
        federation.lead()


def test_sums_do_not_depend_on_the_order_of_answers() -> None:
    models = [_model_in_order(order) for order in ([0, 1, 2], [2, 0, 1])]
    assert models[0] == models[1]


def _model_in_order(order: Sequence[int]) -> bytes:
    federation = Federation(rounds=1)
    late = {f"site-{index + 1}": turn for turn, index in enumerate(order)}
    turns: dict[str, int] = {}

    def tamper(site: str, data: bytes) -> bytes | None:
        if parse(data, MAX_BYTES).kind != Kind.UPDATE:
            return data
        turns[site] = turns.get(site, 0) + 1
        return data if turns[site] > late[site] else None

    federation.tamper = tamper
    federation.lead()
    assert violations(federation) == []
    return federation.models()["site-1"]


def test_report_of_another_run_is_not_taken() -> None:
    federation = Federation(rounds=1, deadline=5.0)

    def tamper(site: str, data: bytes) -> bytes:
        if site != "site-2" or parse(data, MAX_BYTES).kind != Kind.REPORT:
            return data
        return altered(federation, data, scope={"plan": b"x" * 32})

    federation.tamper = tamper
    federation.lead()
    finished = [f for name, f in federation.notes.events if name == "finished"]
    metrics = finished[-1]["metrics"]
    assert isinstance(metrics, dict)
    assert sorted(metrics) == ["site-1", "site-3"]
