"""What standbys brought, and how long a letter waits for what they are to bring."""

import pytest

from fedsecure.client_carried import Carried, patience
from fedsecure.trainer import JSON
from fedsecure.update import RoundId


def test_update_says_nothing_where_nothing_was_brought() -> None:
    assert Carried().header("run-1") == {}


def test_update_says_the_last_round_brought_of_its_run() -> None:
    carried = Carried()
    for number in (2, 5, 3):
        carried.came(RoundId("run-1", number))
    assert carried.header("run-1") == {"brought": 5}
    assert carried.header("run-2") == {}


def test_letter_that_holds_its_release_waits_for_nothing() -> None:
    assert patience({}) == 0.0


def test_letter_waits_as_long_as_its_leader_says() -> None:
    assert patience({"elsewhere": 14}) == 14.0


def test_no_letter_makes_a_site_wait_for_more_than_a_minute() -> None:
    assert patience({"elsewhere": 1 << 53}) == 60.0


@pytest.mark.parametrize("size", [0, -1, "9", True, 1.5, None])
def test_seconds_that_are_none_are_not_waited_for(size: JSON) -> None:
    assert patience({"elsewhere": size}) == 0.0
