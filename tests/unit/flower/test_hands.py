"""Who may pull, and what happens while pulls block. Time is the test's."""

import pytest

from fedsecure.flower.hands import Hands
from tests.fakes.clock import FakeClock

PATIENCE = 5.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hands(clock: FakeClock) -> Hands:
    return Hands(2, PATIENCE, clock)


def take(hands: Hands, *names: str) -> list[bool]:
    return [hands.take(name, 0.0) for name in names]


def test_no_more_than_the_count_are_taken(hands: Hands) -> None:
    assert take(hands, "a", "b", "c") == [True, True, False]


def test_pull_without_an_answer_leaves_its_hand(hands: Hands) -> None:
    take(hands, "a", "b")
    hands.drop("a")
    assert take(hands, "c", "d") == [True, False]


def test_answer_keeps_its_hand_until_it_is_done_with(hands: Hands) -> None:
    take(hands, "a", "b")
    hands.fill("a")
    assert take(hands, "c") == [False]
    hands.give()
    assert take(hands, "c", "d") == [True, False]


def test_blocked_pulls_lose_a_hand_when_nothing_moved_for_long(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a", "b")
    clock.jump(PATIENCE - 0.1)
    assert take(hands, "c") == [False]
    clock.jump(0.1)
    assert take(hands, "c", "d") == [True, False]


def test_each_further_hand_costs_the_whole_patience_again(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a", "b")
    clock.jump(PATIENCE)
    take(hands, "c")
    clock.jump(PATIENCE - 0.1)
    assert take(hands, "d") == [False]
    clock.jump(0.1)
    assert take(hands, "d", "e") == [True, False]


def test_pull_lasts_as_long_as_it_likes_while_a_hand_moves(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a")
    for _ in range(10):
        take(hands, "b")
        clock.jump(PATIENCE - 0.1)
        hands.drop("b")
    assert take(hands, "b", "c") == [True, False]


def test_answers_nobody_is_done_with_open_no_hand(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a", "b")
    hands.fill("a")
    hands.fill("b")
    clock.jump(100 * PATIENCE)
    assert take(hands, "c") == [False]


def test_answer_of_a_pull_that_was_passed_counts_when_it_is_there(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a", "b")
    clock.jump(PATIENCE)
    take(hands, "c")
    for name in "abc":
        hands.fill(name)  # three answers for two hands
    hands.give()
    assert take(hands, "d") == [False]
    hands.give()
    assert take(hands, "d", "e") == [True, False]


def test_pull_that_was_passed_and_brings_nothing_gives_no_second_hand(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a", "b")
    clock.jump(PATIENCE)
    take(hands, "c")
    hands.drop("a")
    assert take(hands, "d") == [False]


def test_clock_that_goes_back_does_not_close_the_hands(
    hands: Hands, clock: FakeClock
) -> None:
    take(hands, "a", "b")
    clock.jump(-3600.0)
    assert take(hands, "c") == [True]
