"""Who should lead: one fact a test, no clock, no engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.election import (
    MARGIN,
    RENEWALS_PER_TTL,
    Act,
    Standing,
    check_ttl,
    decide,
    ended,
    granted,
    lost,
)
from fedsecure.errors import ConfigurationError
from fedsecure.metadata import Lease

TTL = 3.0
MINE = Lease("me", "host", 4, TTL)
OTHERS = Lease("other", "there", 5, TTL)
IDLE = Standing("me")
LEADS = granted(IDLE, MINE, sent=100.0)


def act(
    standing: Standing,
    observed: Lease | None,
    now: float,
    *,
    ailment: str = "",
    frozen: bool = False,
) -> Act:
    return decide(standing, observed, now, ailment=ailment, frozen=frozen).act


def test_standby_campaigns_for_a_free_lease() -> None:
    assert act(IDLE, None, 0.0) == Act.CAMPAIGN


def test_standby_waits_while_another_leads() -> None:
    decision = decide(IDLE, OTHERS, 0.0, ailment="", frozen=False)
    assert (decision.act, decision.reason) == (Act.WAIT, "other leads with term 5")


def test_standby_waits_while_frozen() -> None:
    assert act(IDLE, None, 0.0, frozen=True) == Act.WAIT


def test_standby_that_is_unwell_waits_and_says_why() -> None:
    decision = decide(IDLE, None, 0.0, ailment="it is ill", frozen=False)
    assert decision.act == Act.WAIT
    assert decision.reason == "the lease is free, and me cannot lead: it is ill"


def test_restarted_holder_campaigns_for_its_own_old_lease() -> None:
    assert act(IDLE, MINE, 0.0) == Act.CAMPAIGN


def test_leader_leads_right_after_it_renewed() -> None:
    assert act(LEADS, None, 100.0) == Act.LEAD


def test_leader_renews_six_times_a_ttl() -> None:
    due = 100.0 + TTL / RENEWALS_PER_TTL
    assert act(LEADS, None, due - 0.01) == Act.LEAD
    assert act(LEADS, None, due) == Act.RENEW


def test_leader_steps_down_before_the_engine_would_end_it() -> None:
    end = 100.0 + TTL * (1 - MARGIN)
    assert act(LEADS, None, end - 0.01) == Act.RENEW
    assert act(LEADS, None, end) == Act.STEP_DOWN
    assert end < 100.0 + TTL


def test_leader_that_slept_steps_down_and_says_for_how_long() -> None:
    decision = decide(LEADS, None, 112.5, ailment="", frozen=False)
    assert decision.act == Act.STEP_DOWN
    assert "term 4 ended 10.00 s ago" in decision.reason


@given(st.floats(-1e6, 1e6))
def test_a_clock_that_jumps_never_leaves_a_leader_in_doubt(jump: float) -> None:
    """Either it may act, within its lease as the engine counts it, or it stops."""
    now = LEADS.renewed + jump
    stops = act(LEADS, None, now) == Act.STEP_DOWN
    assert stops == bool(ended(LEADS, now))
    assert stops == (not 0 <= now - LEADS.renewed < LEADS.valid_until - LEADS.renewed)


def test_leader_whose_clock_went_back_says_by_how_much() -> None:
    decision = decide(LEADS, None, 100.0 - 3600, ailment="", frozen=False)
    assert decision.act == Act.STEP_DOWN
    assert "the clock went back 3600.00 s" in decision.reason


def test_leader_steps_down_for_a_higher_term() -> None:
    assert act(LEADS, OTHERS, 100.1) == Act.STEP_DOWN


def test_leader_that_is_unwell_steps_down_at_once_and_says_why() -> None:
    decision = decide(LEADS, None, 100.1, ailment="it is ill", frozen=False)
    assert decision.act == Act.STEP_DOWN
    assert decision.reason == "me gives up term 4: it is ill"


def test_validity_counts_from_the_sending() -> None:
    assert granted(IDLE, MINE, sent=50.0).valid_until == 50.0 + TTL * (1 - MARGIN)


def test_who_lost_holds_nothing() -> None:
    assert lost(LEADS) == Standing("me")


@pytest.mark.parametrize("ttl", [0.3, 3.0, 60.0])
def test_ttl_within_bounds_is_taken(ttl: float) -> None:
    assert check_ttl(ttl) == ttl


@pytest.mark.parametrize("ttl", [0.0, 0.29, 60.1, float("nan")])
def test_ttl_out_of_bounds_is_refused(ttl: float) -> None:
    with pytest.raises(ConfigurationError, match=r"lease\.ttl"):
        check_ttl(ttl)


def test_paused_leader_steps_down() -> None:
    assert act(LEADS, None, 100.1, frozen=True) == Act.STEP_DOWN


def test_leader_that_hands_over_steps_down() -> None:
    decision = decide(LEADS, None, 100.1, ailment="", frozen=False, yielding=True)
    assert decision.act == Act.STEP_DOWN
    assert "handed leadership over" in decision.reason


def test_who_handed_over_lets_others_come_first() -> None:
    waits = decide(IDLE, None, 0.0, ailment="", frozen=False, yielding=True)
    assert waits.act == Act.WAIT
