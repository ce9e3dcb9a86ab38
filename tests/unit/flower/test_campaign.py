"""Leadership over time, turn by turn: no thread runs, the clock is the test's."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from fedsecure.errors import LeaseLost, StorageError
from fedsecure.flower.campaign import Campaign, Operator
from fedsecure.metadata import Lease
from tests.fakes.clock import FakeClock
from tests.fakes.metadata import State, engine

TTL = 3.0


class Said:
    """What an operator said: a wish for a hand-over, and a pause."""

    def __init__(self) -> None:
        self.handover = self.paused = False

    def wanted(self) -> bool:
        return self.handover

    def granted(self) -> None:
        self.handover = False


class Beats:
    """When a campaign beat."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.at = list[float]()

    def beat(self) -> None:
        self.at.append(self._clock.now())

    def longest(self) -> float:
        return max(b - a for a, b in pairwise(self.at))


class Board:
    """Two candidates over one board, stepped by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.state = State(self.clock)
        self.said: dict[str, Said] = {}
        self.ailments: dict[str, str] = {}
        self.one, self.two = self.candidate("agg-1"), self.candidate("agg-2")

    def candidate(self, name: str) -> Campaign:
        said = self.said[name] = Said()
        self.ailments[name] = ""
        return Campaign(
            engine(self.state).leases,
            name,
            "host",
            TTL,
            self.clock,
            ailment=lambda: self.ailments[name],
            operator=Operator(lambda: said.paused, said),
        )


@pytest.fixture
def board() -> Board:
    return Board()


def turn(*campaigns: Campaign) -> None:
    for campaign in campaigns:
        campaign._turn()


def test_first_to_ask_leads_and_the_other_waits(board: Board) -> None:
    turn(board.one, board.two)
    assert board.one.wait(0.0) == 1
    assert board.two.wait(0.0) is None


def test_standby_knows_who_leads_and_that_nobody_does(board: Board) -> None:
    assert board.two.holder == ""
    turn(board.one, board.two)
    assert (board.one.holder, board.two.holder) == ("", "agg-1")
    board.one.step_down()
    board.two._turn()
    assert board.two.holder == ""


def test_leader_may_act_under_its_term_only(board: Board) -> None:
    turn(board.one)
    board.one.check(1)
    with pytest.raises(LeaseLost, match="term 2 is over"):
        board.one.check(2)


def test_who_never_led_may_not_act(board: Board) -> None:
    with pytest.raises(LeaseLost):
        board.one.check(1)


def test_renewals_keep_the_lease(board: Board) -> None:
    for _ in range(20):
        turn(board.one, board.two)
        board.clock.jump(TTL / 6)
    assert board.one.wait(0.0) == 1
    assert board.two.wait(0.0) is None


def test_leader_that_does_not_renew_stops_before_the_other_begins(board: Board) -> None:
    turn(board.one)
    board.clock.jump(TTL * 0.9)
    with pytest.raises(LeaseLost, match=r"ended .* ago, not renewed"):
        board.one.check(1)
    turn(board.two)
    assert board.two.wait(0.0) is None  # still the board's: nobody leads


def test_a_leader_that_could_not_renew_says_which_board_was_silent(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn(board.one)

    def silent() -> None:
        board.one._stop.set()
        raise StorageError("etcd at e1:\n could not renew")

    monkeypatch.setattr(board.one, "_turn", silent)
    board.one._loop()
    board.clock.jump(TTL)
    said = r"not renewed: the lease board does not answer: etcd at e1: could not renew"
    with pytest.raises(LeaseLost, match=said):
        board.one.check(1)


def test_leader_whose_clock_went_back_may_not_act(board: Board) -> None:
    turn(board.one)
    board.clock.jump(-3600.0)
    with pytest.raises(LeaseLost, match=r"the clock went back 3600\.00 s"):
        board.one.check(1)


def test_why_a_leadership_ended_is_said_to_who_asks_later(board: Board) -> None:
    turn(board.one)
    board.clock.jump(3600.0)
    turn(board.one)
    with pytest.raises(LeaseLost, match=r"term 1 is over: term 1 ended .* not renewed"):
        board.one.check(1)


def test_a_clock_that_went_back_does_not_prolong_a_hand_over(board: Board) -> None:
    board.said["agg-1"].handover = True
    turn(board.one)
    assert board.one.wait(0.0) is None
    board.clock.jump(-3600.0)
    turn(board.one)
    assert board.one.wait(0.0) is not None


def test_standby_takes_over_when_the_lease_ran_out(board: Board) -> None:
    turn(board.one)
    board.clock.jump(TTL)
    turn(board.two)
    assert board.two.wait(0.0) == 2


def test_paused_leader_learns_that_it_lost(board: Board) -> None:
    turn(board.one)
    board.clock.jump(TTL)
    turn(board.two, board.one)
    assert board.one.wait(0.0) is None
    with pytest.raises(LeaseLost):
        board.one.check(1)
    board.two.check(2)


def test_step_down_lets_the_other_lead_at_once(board: Board) -> None:
    turn(board.one)
    board.one.step_down()
    turn(board.two)
    assert board.two.wait(0.0) == 2


def test_floor_is_risen_above(board: Board) -> None:
    turn(board.one)
    board.one.step_down(floor=7)
    turn(board.one)
    assert board.one.wait(0.0) == 8


@pytest.fixture
def climber(board: Board, monkeypatch: pytest.MonkeyPatch) -> tuple[Campaign, Beats]:
    """A candidate 900 terms below the floor, and its beats; the board is slow."""
    one, beats, acquire = board.one, Beats(board.clock), board.one._board.acquire

    def slowly(*asked: Any) -> Lease | None:
        board.clock.sleep(0.02)
        return acquire(*asked)

    monkeypatch.setattr(one._board, "acquire", slowly)
    one._beat = beats.beat
    one.step_down(floor=900)
    return one, beats


def test_climbing_to_a_far_floor_beats_at_each_try(
    climber: tuple[Campaign, Beats],
) -> None:
    turn(climber[0])
    assert len(climber[1].at) == 901
    assert climber[1].longest() < 0.1


def test_lease_won_after_a_long_climb_counts_from_its_own_try(
    climber: tuple[Campaign, Beats],
) -> None:
    turn(climber[0])
    climber[0].check(901)


def test_stop_ends_a_climb(climber: tuple[Campaign, Beats], board: Board) -> None:
    climber[0]._stop.set()
    turn(climber[0])
    assert climber[0].wait(0.0) is None
    assert board.state.term == 1
    assert board.state.lease is None


def test_board_that_does_not_answer_is_no_free_lease(board: Board) -> None:
    turn(board.one)
    board.state.reachable = False
    with pytest.raises(StorageError, match="does not answer"):
        turn(board.two)
    assert board.two.wait(0.0) is None


def test_leader_leads_on_while_the_board_is_silent_but_not_beyond_its_lease(
    board: Board,
) -> None:
    turn(board.one)
    board.state.reachable = False
    board.clock.jump(TTL / 2)
    board.one.check(1)
    board.clock.jump(TTL / 2)
    with pytest.raises(LeaseLost):
        board.one.check(1)


def test_unwell_standby_does_not_campaign_until_it_is_well(board: Board) -> None:
    board.ailments["agg-1"] = "its SuperLink is silent"
    turn(board.one)
    assert board.one.wait(0.0) is None
    board.ailments["agg-1"] = ""
    turn(board.one)
    assert board.one.wait(0.0) == 1


def test_unwell_leader_leaves_the_lease_to_the_other_at_once(board: Board) -> None:
    turn(board.one)
    board.ailments["agg-1"] = "its SuperLink is silent"
    turn(board.one, board.two)
    assert board.two.wait(0.0) == 2
    with pytest.raises(LeaseLost, match=r"term 1 is over: .* its SuperLink is silent"):
        board.one.check(1)


def test_ailment_is_looked_at_while_the_board_is_silent(board: Board) -> None:
    seen = list[str]()

    def ailment() -> str:
        seen.append("a look")
        return ""

    board.one._ailment = ailment
    board.state.reachable = False
    with pytest.raises(StorageError):
        turn(board.one)
    assert seen == ["a look"]


@pytest.fixture
def running(board: Board) -> Iterator[Campaign]:
    board.one.start()
    yield board.one
    board.one.stop()


def test_thread_campaigns_by_itself(running: Campaign) -> None:
    assert running.wait(10.0) == 1


def test_stop_gives_the_lease_up(board: Board, running: Campaign) -> None:
    assert running.wait(10.0) == 1
    running.stop()
    assert board.state.lease is None
    assert running.wait(0.0) is None


def test_silent_board_does_not_end_the_thread(board: Board) -> None:
    board.state.reachable = False
    board.one.start()
    try:
        assert board.one.wait(0.1) is None
        board.state.reachable = True
        assert board.one.wait(10.0) == 1
    finally:
        board.one.stop()


def test_hand_over_gives_the_lease_to_the_other_within_a_turn(board: Board) -> None:
    turn(board.one)
    board.said["agg-1"].handover = True
    turn(board.one, board.two)
    assert board.two.wait(0.0) == 2
    with pytest.raises(LeaseLost):
        board.one.check(1)


def test_who_handed_over_does_not_take_the_lease_back_at_once(board: Board) -> None:
    turn(board.one)
    board.said["agg-1"].handover = True
    turn(board.one, board.one)
    assert board.one.wait(0.0) is None
    assert board.state.lease is None


def test_who_handed_over_leads_again_if_nobody_else_does(board: Board) -> None:
    turn(board.one)
    board.said["agg-1"].handover = True
    turn(board.one)
    board.clock.sleep(3 * TTL + 0.1)
    turn(board.one)
    assert board.one.wait(0.0) == 2


def test_who_handed_over_takes_it_back_when_the_other_hands_over(
    board: Board,
) -> None:
    turn(board.one)
    board.said["agg-1"].handover = True
    turn(board.one, board.two, board.one)
    board.said["agg-2"].handover = True
    turn(board.two, board.one)
    assert board.one.wait(0.0) == 3


def test_paused_leader_steps_down_and_stays_down_until_resumed(board: Board) -> None:
    turn(board.one)
    board.said["agg-1"].paused = True
    turn(board.one, board.one)
    assert board.state.lease is None
    board.said["agg-1"].paused = False
    turn(board.one)
    assert board.one.wait(0.0) == 2
