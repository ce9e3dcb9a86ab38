"""Two processes of one name do not both serve."""

from collections.abc import Callable

import pytest

from fedsecure.daemons.namesake import refuse_namesake
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.metadata import Lease
from tests.fakes.clock import FakeClock

TTL = 3.0


class Board:
    """A board whose answer depends on the time; nothing is ever taken at it."""

    def __init__(self, clock: FakeClock, say: Callable[[float], Lease | None]) -> None:
        self._clock, self._say, self._began = clock, say, clock.now()
        self.asked = 0

    def read(self) -> Lease | None:
        self.asked += 1
        return self._say(self._clock.now() - self._began)

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        raise AssertionError

    def renew(self, lease: Lease) -> Lease | None:
        raise AssertionError

    def release(self, lease: Lease) -> None:
        raise AssertionError


def leased(holder: str, term: int = 4) -> Lease:
    return Lease(holder, "other:9091", term, TTL)


def test_nobody_or_somebody_else_leading_costs_one_look() -> None:
    for lease in (None, leased("agg-2")):
        clock = FakeClock()
        board = Board(clock, lambda _, lease=lease: lease)  # type: ignore[misc]
        refuse_namesake(board, "agg-1", clock)
        assert board.asked == 1


def test_ones_own_last_lease_is_waited_for() -> None:
    clock = FakeClock()
    board = Board(clock, lambda t: leased("agg-1") if t < TTL else None)
    refuse_namesake(board, "agg-1", clock)


def test_another_ones_turn_ends_the_wait() -> None:
    clock = FakeClock()
    board = Board(clock, lambda t: leased("agg-1" if t < TTL else "agg-2"))
    refuse_namesake(board, "agg-1", clock)


def test_a_lease_that_is_renewed_is_a_namesakes() -> None:
    clock = FakeClock()
    board = Board(clock, lambda _: leased("agg-1"))
    with pytest.raises(ConfigurationError) as refused:
        refuse_namesake(board, "agg-1", clock)
    said = str(refused.value)
    assert "another process leads as agg-1 (term 4, address other:9091)" in said
    assert "end one of them" in said


def test_a_higher_term_under_ones_name_is_a_namesakes_at_once() -> None:
    clock = FakeClock()
    began = clock.now()
    board = Board(clock, lambda t: leased("agg-1", 4 if t < 1 else 5))
    with pytest.raises(ConfigurationError, match="another process leads as agg-1"):
        refuse_namesake(board, "agg-1", clock)
    assert clock.now() - began < TTL


def test_a_board_that_is_silent_is_no_free_seat() -> None:
    def silent(_: float) -> Lease | None:
        raise StorageError("no answer")

    clock = FakeClock()
    with pytest.raises(StorageError):
        refuse_namesake(Board(clock, silent), "agg-1", clock)
