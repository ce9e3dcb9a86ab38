"""Noisy counts while everything dies: one charge never pays for two different ones.

A site dies after each of its durable steps, answers are lost and asked for again,
leaders follow each other; an ear at the door hears all that leaves. The faults planted
at the end show that the ear would hear it.
"""

import json

import pytest

from fedsecure.client_charges import Charges
from fedsecure.client_report import Reports
from fedsecure.envelope import Kind
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.account import Reservation
from fedsecure.privacy.counts import CountsPlan
from fedsecure.runplan import RunPlan
from fedsecure.shelf import Kept
from fedsecure.update import Layout, RoundId
from tests.fakes.counts import NOISE, Ear, charges, counting
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations

ME, LAST = "site-2", 3
STEPS = 31
"""Durable steps of a site in a run that tells counts at its end; tested below."""
ROUND_STEPS = 35


def run(federation: Federation, *, loses: bool = False) -> Ear:
    ear = Ear(federation, loses=loses)
    federation.lead()
    return ear


def test_counts_leave_once_at_the_end_and_nothing_else_does() -> None:
    federation = counting()
    ear = run(federation)
    assert ear.violations() == []
    assert set(ear.told) == {(site, LAST) for site in federation.sites}
    assert [len(charges(federation.sites[ME], n)) for n in (1, 2, LAST)] == [0, 0, 1]


def test_counts_of_every_round_leave_once_a_round() -> None:
    federation = counting(each_round=True)
    ear = run(federation)
    assert ear.violations() == []
    assert set(ear.told) == {(s, n) for s in federation.sites for n in (1, 2, LAST)}
    assert [len(charges(federation.sites[ME], n)) for n in (1, 2, LAST)] == [1, 1, 1]


@pytest.mark.parametrize(("each_round", "steps"), [(False, STEPS), (True, ROUND_STEPS)])
def test_steps_counted_are_the_steps_there_are(each_round: bool, steps: int) -> None:
    federation = counting(each_round=each_round)
    federation.lead()
    assert len(federation.sites[ME].fuse.names) == steps


@pytest.mark.parametrize(
    "step", [*range(0, STEPS - 9, 6), *range(STEPS - 9, STEPS + 1)]
)
def test_site_dies_after_a_step_and_tells_one_thing(step: int) -> None:
    federation = counting()
    federation.sites[ME].fuse = Fuse(ME, dies_after=step)
    ear = run(federation)
    assert ear.violations() == []
    assert (ME, LAST) in ear.told
    assert 1 <= len(charges(federation.sites[ME], LAST)) <= 2


@pytest.mark.parametrize("step", range(STEPS - 7, STEPS + 1, 2))
def test_site_dies_again_over_its_last_answer(step: int) -> None:
    for second in (1, 2, 4):
        federation = counting()
        site = federation.sites[ME]
        site.fuse = Fuse(ME, dies_after=step)
        site.fuses.append(Fuse(ME, dies_after=second))
        ear = run(federation, loses=True)
        assert ear.violations() == []
        assert 1 <= len(charges(site, LAST)) <= 3


@pytest.mark.parametrize("step", range(0, ROUND_STEPS + 1, 4))
def test_site_dies_after_a_step_of_a_round_that_tells(step: int) -> None:
    federation = counting(each_round=True)
    federation.sites[ME].fuse = Fuse(ME, dies_after=step)
    ear = run(federation)
    assert ear.violations() == []
    assert len(ear.told) == 3 * len(federation.sites)


def test_lost_answers_are_told_again_to_the_letter() -> None:
    federation = counting(each_round=True)
    ear = run(federation, loses=True)
    assert ear.violations() == []
    assert len(ear.told) == 3 * len(federation.sites)


def test_a_run_that_tells_counts_breaks_nothing_else() -> None:
    federation = counting()
    run(federation)
    assert violations(federation) == []


def test_a_second_leader_hears_what_the_first_was_told() -> None:
    dry, fuse = counting(), Fuse("agg-1")
    dry.lead("agg-1", fuse)
    federation = counting()
    ear = Ear(federation)
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=len(fuse.names) - 1))
    federation.lead("agg-2")
    assert ear.violations() == []
    assert (ME, LAST) in ear.told


# --- planted faults -------------------------------------------------------------------


def test_counts_told_without_a_charge_are_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unpaid = Reservation(0, None, b"", None)  # type: ignore[arg-type]
    monkeypatch.setattr(Charges, "counts", lambda *_: unpaid)
    monkeypatch.setattr(Charges, "settle", lambda *_: None)
    ear = run(counting())
    assert f"{ME} told counts of round {LAST}, paid 0 times" in ear.violations()


def test_counts_of_rounds_told_without_a_charge_are_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def training_only(
        self: Charges, plan: RunPlan, round_id: RoundId, layout: Layout, units: int
    ) -> tuple[Reservation, ...]:
        event = plan.event(layout.num_parameters)
        return (self._reserve(plan, round_id, event, units),)

    monkeypatch.setattr(Charges, "training", training_only)
    ear = run(counting(each_round=True))
    assert f"{ME} told counts of round 1, paid 0 times" in ear.violations()


def test_counts_drawn_anew_for_a_repeat_are_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def anew(self: Reports, known: Kept, asked: str) -> Kept:
        _ = asked
        head, told = known.head, {"num_test": 10.0, "accuracy": 0.7}
        header = json.loads(head.header)
        header["metrics"] = CountsPlan(NOISE, each_round=False).release(
            told, self._source
        )
        body = (head.body_bytes, head.body_sha256)
        forged = self._me.sign_head(Kind.REPORT, head.scope, header, body)
        return Kept(forged, Outgoing.of(forged.to_bytes()))

    monkeypatch.setattr(Reports, "_again", anew)
    ear = run(counting(), loses=True)
    assert f"{ME} told 2 different counts of round {LAST}" in ear.violations()
