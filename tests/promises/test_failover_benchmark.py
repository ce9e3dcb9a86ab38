"""The failover benchmark counts what it says it counts."""

from pathlib import Path

import pytest

from experiments.benchmarks.outages.engines import Running
from experiments.benchmarks.outages.federation import Strike, Striker, samples
from experiments.benchmarks.outages.samples import BEYOND, GOALS, Kept, figures, table
from fedsecure.backends import Event
from fedsecure.trainer import JSON


def event(what: str, source: str, now: float, **more: JSON) -> Event:
    return {"event": what, "source": source, "now": now, **more}


@pytest.fixture
def striker() -> Striker:
    """Return what was heard of one leader that was struck in round 2, at 10 s."""
    made = Striker(Running("etcd", dict, list), "host lost", 1)
    made.strikes = [Strike("one", 10.0, 2)]
    made.events = [
        event("released", "one", 9.0, round=1, seconds=30.0),
        event("sent", "one", 9.5),
        event("update", "one", 10.1),
        event("leader", "two", 12.0),
        event("resumed", "two", 12.1),
        event("sent", "two", 12.5),
        event("update", "two", 14.0),
        event("released", "two", 18.0, round=2, seconds=8.5),
        event("released", "two", 22.0, round=3, seconds=4.0),
    ]
    return made


def test_seconds_count_from_the_blow_to_what_others_do(striker: Striker) -> None:
    found = samples(striker)
    assert found["new leader"] == [2.0]
    assert found["round taken up"] == [pytest.approx(2.1)]
    assert found["first train message"] == [2.5]
    assert found["next update"] == [4.0]
    assert found["next completed round"] == [8.0]


def test_an_ordinary_round_is_neither_the_first_nor_a_broken_one(
    striker: Striker,
) -> None:
    found = samples(striker)
    assert found["an ordinary round"] == [4.0]
    assert found[BEYOND] == [2.0]  # 8 s, less 2 s until it was seen, less 4 s


def test_a_blow_that_nobody_follows_is_no_sample(striker: Striker) -> None:
    striker.events = [e for e in striker.events if e["source"] == "one"]
    assert "new leader" not in samples(striker)


def rows(name: str, *seconds: float) -> dict[str, dict[str, list[float]]]:
    return {name: {"seconds": [*seconds], "load": [1.0]}}


def test_a_row_meets_its_target_by_both_percentiles() -> None:
    name = "etcd: host lost: new leader"
    assert GOALS[name] == (4.0, 6.0)
    assert figures(rows(name, 3.0, 3.0, 5.9))[name]["met"]
    assert not figures(rows(name, 3.0, 3.0, 6.1))[name]["met"]
    assert not figures(rows(name, 4.1, 4.1, 4.2))[name]["met"]


def test_a_missed_target_is_said_in_the_table() -> None:
    name = "embedded: host lost: new leader"
    assert "| **no** |" in table(figures(rows(name, 0.3)))


def test_pieces_are_gathered_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    Kept(path).add({"row": [1.0]})
    again = Kept(path)
    again.add({"row": [2.0]})
    assert Kept(path).rows["row"]["seconds"] == [1.0, 2.0]
