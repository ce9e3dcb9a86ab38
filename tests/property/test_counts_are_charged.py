"""Counts cost: never nothing, more where there are more, the same after a restart."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsecure import registry
from fedsecure.accounting import (
    COUNTS,
    PrivacyEvent,
    Relation,
    enforced_with,
    guarantee,
)
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger
from fedsecure.planning import events_until, whole_run
from fedsecure.privacy.budget import Budget, Ceiling, Content
from fedsecure.privacy.charged import charged
from fedsecure.privacy.counts import CountsPlan
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.privacy.promise import promises
from fedsecure.update import RoundId
from tests.fakes.certified import LOCAL, SHARED
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.federation import LEDGER

ADD, DELTA = Relation.ADD_OR_REMOVE_ONE, 1e-5
PLANS = st.sampled_from([LOCAL, SHARED])
COUNTING = st.builds(
    CountsPlan, st.floats(2.0, 200.0, allow_nan=False), each_round=st.booleans()
)
ROUNDS = st.integers(1, 30)


def rdp(events: list[PrivacyEvent]) -> float:
    return guarantee("rdp", ADD, events, DELTA).epsilon


@given(PLANS, COUNTING, ROUNDS)
@settings(max_examples=10, deadline=None)
def test_a_run_with_counts_costs_more_than_without(
    plan: PrivacyPlan, counts: CountsPlan, rounds: int
) -> None:
    longer = replace(plan, rounds=rounds)
    assert rdp(whole_run(longer, counts)) > rdp(whole_run(longer, None))


@given(PLANS, COUNTING)
@settings(max_examples=4, deadline=None)
def test_every_promise_has_the_counts_in_it(
    plan: PrivacyPlan, counts: CountsPlan
) -> None:
    few = replace(counts, noise_multiplier=min(counts.noise_multiplier, 20.0))
    told, silent = (promises(plan, whole_run(plan, c)) for c in (few, None))
    assert len(told) == len(silent)
    for more, less in zip(told, silent, strict=True):
        assert more.enforced.epsilon > less.enforced.epsilon


@given(PLANS, COUNTING, ROUNDS)
@settings(max_examples=10, deadline=None)
def test_counts_of_each_round_cost_more_than_counts_at_the_end(
    plan: PrivacyPlan, counts: CountsPlan, rounds: int
) -> None:
    each, last = (replace(counts, each_round=e) for e in (True, False))
    longer = replace(plan, rounds=rounds)
    assert rdp(whole_run(longer, each)) > rdp(whole_run(longer, last))


@given(COUNTING, ROUNDS)
def test_a_run_tells_what_its_rounds_tell_and_its_end(
    counts: CountsPlan, rounds: int
) -> None:
    plan = replace(LOCAL, rounds=rounds)
    events = events_until(plan, counts, rounds, ended=True)
    told = sum(e.steps for e in events if e.kind == COUNTS)
    assert told == counts.releases(rounds)


@given(COUNTING, st.integers(1, 6))
@settings(max_examples=4, deadline=None)
def test_a_ledger_that_is_replayed_costs_the_same(
    counts: CountsPlan, rounds: int
) -> None:
    disk, key, clock = FakeDisk(), SigningKey.generate(), FakeClock()
    guards = [registry.load("accounting", "rdp").create]
    ceiling = Ceiling(1e6, DELTA, ADD, bytes(32))
    content = Content("data", "fingerprint", 50)
    ledger = Ledger.open(LEDGER, "site-1", key, disk, clock)
    budget = Budget.open(ledger, content, ceiling, guards)
    for number in range(1, rounds + 2):
        if number <= rounds:
            budget.reserve(RoundId("run-1", number), bytes(32), LOCAL.event())
        if counts.each_round or number > rounds:
            budget.reserve(RoundId("run-1", number), bytes(32), counts.event())
    before = budget.epsilon(DELTA)
    again = Ledger.open(LEDGER, "site-1", key, disk.restart(), clock)
    replayed = Budget.open(again, content, ceiling, guards)
    events = charged(again.records(), "run-1")
    assert replayed.epsilon(DELTA) == before
    assert rdp(events) == pytest.approx(before, rel=1e-12)
    assert before == pytest.approx(
        rdp(whole_run(replace(LOCAL, rounds=rounds), counts)), rel=1e-9
    )
    assert enforced_with(events) == "pld"
