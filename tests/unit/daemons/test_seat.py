"""A supervisor gives up what its dead ServerApp held, and nothing else."""

import pytest

from fedsecure.daemons.seat import Seat
from fedsecure.errors import StorageError
from fedsecure.metadata import LeaseBoard
from tests.fakes.clock import FakeClock
from tests.fakes.metadata import State, engine

TTL = 3.0


class Case:
    """A board, and how often the supervisor of agg-1 looked for it."""

    def __init__(self) -> None:
        self.state = State(FakeClock())
        self.board = engine(self.state).leases
        self.looked = 0
        self.seat = Seat(self._find, "agg-1", "host-1:9092")

    def _find(self) -> LeaseBoard:
        self.looked += 1
        return self.board


@pytest.fixture
def case() -> Case:
    return Case()


def test_lease_of_the_dead_is_anothers_at_once(case: Case) -> None:
    lease = case.board.acquire("agg-1", "host-1:9092", TTL)
    assert case.seat.vacate() == lease
    assert case.board.acquire("agg-2", "host-2:9092", TTL) is not None


@pytest.mark.parametrize(
    ("holder", "address"), [("agg-2", "host-1:9092"), ("agg-1", "host-2:9092")]
)
def test_lease_of_somebody_else_stays(case: Case, holder: str, address: str) -> None:
    lease = case.board.acquire(holder, address, TTL)
    assert case.seat.vacate() is None
    assert case.board.read() == lease


def test_free_lease_is_nothing_to_give_up(case: Case) -> None:
    assert case.seat.vacate() is None


def test_board_is_found_once_and_before_it_is_needed(case: Case) -> None:
    case.seat.prepare()
    assert case.looked == 1
    case.seat.vacate()
    assert case.looked == 1


def test_silent_board_changes_nothing_and_is_found_anew(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    lease = case.board.acquire("agg-1", "host-1:9092", TTL)
    case.state.reachable = False
    assert case.seat.vacate() is None
    assert "the lease runs out" in caplog.text
    case.state.reachable = True
    assert case.seat.vacate() == lease
    assert case.looked == 2


def test_board_that_cannot_be_found_is_no_reason_to_end(case: Case) -> None:
    def nowhere() -> LeaseBoard:
        raise StorageError("no server")

    seat = Seat(nowhere, "agg-1", "host-1:9092")
    seat.prepare()
    assert seat.vacate() is None
