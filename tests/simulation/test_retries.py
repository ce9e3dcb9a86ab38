"""Asked again: the same bytes. Another set of sites: a new round, noise and charge."""

from dataclasses import replace

import numpy as np
import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.metadata import Step
from fedsecure.trainer import JSON, TrainingResult
from fedsecure.update import ModelUpdate
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import own_update
from tests.fakes.fuses import Died, Until

ME = "site-2"


def noisy(federation: Federation) -> list[float]:
    """Let a site draw noise each time it trains; return the draws as they come."""
    dice, draws = np.random.default_rng(7), list[float]()

    def add(result: TrainingResult) -> TrainingResult:
        if result.update is None:
            return result
        noise = dice.normal(0.0, 0.1, result.update.delta.size)
        draws.append(float(noise[0]))
        update = replace(result.update, delta=result.update.delta + noise)
        assert isinstance(update, ModelUpdate)
        return replace(result, update=update)

    federation.sites[ME].trainer.change = add
    return draws


def body(federation: Federation, number: int) -> bytes:
    return bytes(own_update(federation, ME, number).body)


def without_round_one(federation: Federation, lost: str) -> None:
    """Lose a site's update of round 1 for ever: the set of the round is another."""

    def tamper(site: str, data: bytes) -> bytes | None:
        envelope = parse(data, MAX_BYTES)
        update = envelope.kind == Kind.UPDATE
        return (
            None
            if update and (site, envelope.scope.round.number) == (lost, 1)
            else data
        )

    federation.tamper = tamper


def test_a_round_whose_set_fell_short_is_skipped_and_the_next_is_new() -> None:
    federation = Federation(deadline=5.0)
    draws = noisy(federation)
    without_round_one(federation, "site-3")
    federation.lead()
    steps = {(e.round, e.step) for e in federation.journal()}
    assert (1, Step.SKIP) in steps
    assert (2, Step.RELEASE) in steps
    site = federation.sites[ME]
    # Both rounds start from the first model: only the noise makes them differ.
    assert len(draws) == len(set(draws)) == 2
    assert body(federation, 1) != body(federation, 2)
    assert [site.reservations(n) for n in (1, 2)] == [1, 1]


def test_a_skipped_round_stays_charged() -> None:
    federation = Federation(deadline=5.0)
    without_round_one(federation, "site-3")
    federation.lead()
    budget = federation.sites[ME].budget
    assert budget is not None
    assert budget.epsilon(1e-5) == 2.0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_successor_that_asks_again_gets_the_same_bytes_for_no_charge(
    *, restarted: bool
) -> None:
    federation = Federation()
    draws = noisy(federation)
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal close"))
    before = own_update(federation, ME, 1).to_bytes()
    leader = federation.leader("agg-2")
    letter = Letters(leader, begin(leader, None)).request(ME, 1, train=True)()
    if restarted:
        federation.sites[ME].die()
    assert federation.sites[ME].answer(letter) == before
    assert len(draws) == federation.sites[ME].reservations(1) == 1


def test_a_longer_ledger_does_not_change_the_bytes_of_an_answer() -> None:
    # The head in an answer is from when it was made: the bytes are signed and stay.
    federation = Federation()
    federation.lead()
    first = own_update(federation, ME, 1).to_bytes()
    federation.sites[ME].half()._ledger.append("node.started", ME)
    federation.sites[ME].die()
    federation.sites[ME].half()
    assert own_update(federation, ME, 1).to_bytes() == first


def test_a_second_plan_for_a_run_is_refused_and_not_charged() -> None:
    federation = Federation()
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal close"))
    other = {**federation.plan, "seed": 8}
    site = federation.sites[ME]
    charged = site.reservations(1) + site.reservations(2)
    leader = federation.leader("agg-2")
    scope = replace(own_update(federation, ME, 1).scope, plan=bytes(32))
    header: dict[str, JSON] = {"term": leader.term, "plan": other, "heads": {}}
    letter = leader.sign(Kind.REQUEST, scope, header, b"")
    assert parse(site.answer(letter), MAX_BYTES).kind == Kind.REFUSAL
    assert site.reservations(1) + site.reservations(2) == charged
