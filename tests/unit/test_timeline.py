"""Who led, when: reigns counted from a run's marks, and drawn."""

import pytest

from fedsecure.pictures import Picture
from fedsecure.timeline import LEADERS, Reign, reigns, timeline_picture
from tests.fakes import figures
from tests.unit.test_pictures import words


@pytest.fixture(scope="module")
def drawn() -> Picture:
    found = timeline_picture(figures.rounds(), figures.timeline())
    assert found is not None
    return found


def test_the_kill_and_the_time_without_a_leader_are_marked(
    drawn: Picture,
) -> None:
    said = words(drawn)
    assert "SIGKILL" in said
    assert "no leader 3.42 s" in said


def test_each_leader_has_its_colour(drawn: Picture) -> None:
    svg = drawn.svg.decode()
    assert LEADERS[0] in svg
    assert LEADERS[1] in svg
    assert LEADERS[2] not in svg


def test_a_picture_is_told_in_words(drawn: Picture) -> None:
    assert "agg-1 led term 1 from 0.4 s to 8.0 s and was killed" in drawn.alt


def test_without_a_leader_there_is_no_timeline() -> None:
    assert timeline_picture([], []) is None


def test_a_reign_ends_with_a_kill() -> None:
    assert reigns(figures.timeline(), 24.0) == [
        Reign("agg-1", 1, 0.4, 8.0, killed=True),
        Reign("agg-2", 2, 11.42, 24.0, killed=False),
    ]


def test_a_reign_ends_with_a_lost_lease() -> None:
    marks = [
        {"at": 0.0, "event": "leader", "name": "agg-1", "term": 1},
        {"at": 1.0, "event": "lost", "name": "agg-2", "term": 0},
        {"at": 2.0, "event": "lost", "name": "agg-1", "term": 1},
    ]
    assert reigns(marks, 9.0) == [Reign("agg-1", 1, 0.0, 2.0, killed=False)]


def test_a_kill_noted_after_the_next_leader_began_is_a_kill() -> None:
    marks = [
        {"at": 0.0, "event": "leader", "name": "agg-1", "term": 1},
        {"at": 5.0, "event": "leader", "name": "agg-2", "term": 2},
        {"at": 5.1, "event": "kill", "name": "agg-1", "term": 1},
    ]
    assert reigns(marks, 9.0) == [
        Reign("agg-1", 1, 0.0, 5.0, killed=True),
        Reign("agg-2", 2, 5.0, 9.0, killed=False),
    ]


def test_a_leader_that_handed_over_and_was_killed_later_was_not_killed_leading() -> (
    None
):
    marks = [
        {"at": 0.0, "event": "leader", "name": "agg-1", "term": 1},
        {"at": 2.0, "event": "lost", "name": "agg-1", "term": 1},
        {"at": 3.0, "event": "leader", "name": "agg-2", "term": 2},
        {"at": 5.0, "event": "kill", "name": "agg-1", "term": None},
    ]
    assert not any(reign.killed for reign in reigns(marks, 9.0))
