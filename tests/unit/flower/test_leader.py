"""A metadata store made anew hands out old terms; sites and leaders climb above."""

from collections.abc import Callable
from typing import Any

import pytest

from fedsecure.clock import SystemClock
from fedsecure.errors import StaleTerm
from fedsecure.flower.campaign import Campaign
from fedsecure.flower.leader import TERM_JUMP, Leader
from fedsecure.metadata import Lease


class Board:
    """A lease board of one: grants the next term each time."""

    def __init__(self) -> None:
        self.term = 0
        self.held: Lease | None = None

    def read(self) -> Lease | None:
        return self.held

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        self.term += 1
        self.held = Lease(holder, address, self.term, ttl)
        return self.held

    def renew(self, lease: Lease) -> Lease | None:
        return self.held

    def release(self, lease: Lease) -> None:
        self.held = None


def leader(term: int) -> Leader:
    nothing: Any = None
    check: Callable[[], None] = lambda: None  # noqa: E731 - nobody else leads
    return Leader(nothing, nothing, term, check)


def test_a_leader_that_a_site_outran_steps_down_with_the_term_seen() -> None:
    with pytest.raises(StaleTerm, match="has seen term 7, this is 2") as caught:
        leader(2).heed("site-1", 7)
    assert caught.value.seen == 7


def test_an_equal_or_older_term_is_no_reason_to_step_down() -> None:
    for seen in (0, 1, 2):
        leader(2).heed("site-1", seen)
    assert leader(2).term == 2


def test_an_absurd_term_is_not_believed() -> None:
    leader(2).heed("site-1", 3 + TERM_JUMP)
    with pytest.raises(StaleTerm):
        leader(2).heed("site-1", 2 + TERM_JUMP)


def test_the_next_term_won_lies_above_the_floor() -> None:
    campaign = Campaign(Board(), "agg-a", "here:1", 3.0, SystemClock())
    campaign.step_down(floor=7)
    campaign.start()
    try:
        assert campaign.wait(5.0) == 8
    finally:
        campaign.stop()
