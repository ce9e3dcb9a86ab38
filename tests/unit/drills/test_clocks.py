"""What a jump of a clock must not change, and what it must be called."""

import json
from pathlib import Path

import pytest

from fedsecure.clock import SystemClock
from fedsecure.drills.clocks import stopped, unnoticed
from fedsecure.drills.lease import Cast


def cast(folder: Path, **said: list[tuple[str, int]]) -> Cast:
    """Return members that said (event, term)."""
    made = Cast(folder, SystemClock(), 0.0, children=dict.fromkeys(said))  # type: ignore[arg-type]
    for name, lines in said.items():
        rows = [{"event": e, "name": name, "term": t, "now": 1.0} for e, t in lines]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.log").write_text(text)
    return made


LED = [("leads", 1), ("wrote", 1), ("wrote", 1)]


def test_a_leader_that_writes_on_alone_noticed_nothing(tmp_path: Path) -> None:
    made = cast(tmp_path, day=LED, other=[("stands by", 0)])
    assert unnoticed(made, "day", 2, "+3600") == []


@pytest.mark.parametrize(
    ("day", "other"),
    [
        ([*LED, ("over", 1), ("wrote", 1)], []),
        ([*LED, ("leads", 2), ("wrote", 2)], []),
        (LED, [("leads", 2)]),
    ],
)
def test_a_leadership_that_ends_breaks_the_promise(
    tmp_path: Path, day: list[tuple[str, int]], other: list[tuple[str, int]]
) -> None:
    made = cast(tmp_path, day=day, other=other)
    (text,) = unnoticed(made, "day", 2, "+3600")
    assert "ended the leadership of day" in text


def test_a_leader_that_writes_no_more_breaks_the_promise(tmp_path: Path) -> None:
    made = cast(tmp_path, day=LED)
    assert unnoticed(made, "day", len(LED), "-3600") == [
        "day wrote nothing with a time of day -3600 s off"
    ]


def over(reason: str, term: int = 3) -> list[dict[str, object]]:
    return [{"event": "over", "term": term, "reason": reason}]


@pytest.mark.parametrize(
    "reason", ["term 3 ended 3600 s ago, not renewed", "the clock went back 3600 s"]
)
def test_a_leader_that_stops_for_its_clock_keeps_the_promise(reason: str) -> None:
    assert stopped(over(reason), 3, "east", "+3600") == []


def test_a_leader_that_does_not_stop_breaks_the_promise() -> None:
    (text,) = stopped(over("term 2 ended", term=2), 3, "east", "+3600")
    assert "did not stop by itself" in text


def test_a_leader_that_only_met_a_newer_term_breaks_the_promise() -> None:
    (text,) = stopped(over("StaleTerm: term 4 leads"), 3, "east", "-3600")
    assert "not for its clock" in text
