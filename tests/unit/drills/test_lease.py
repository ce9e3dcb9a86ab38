"""The verdict on members: their own words held against the journal."""

import json
from pathlib import Path

from fedsecure.clock import SystemClock
from fedsecure.drills.lease import Cast, Kept, shown, verdict


def cast(folder: Path, *lines: tuple[str, int, int]) -> Cast:
    made = Cast(folder, SystemClock(), 0.0, children=dict.fromkeys(["a"]))  # type: ignore[arg-type]
    text = "".join(
        json.dumps({"event": e, "name": "a", "term": t, "number": n, "now": 1.0}) + "\n"
        for e, t, n in lines
    )
    (folder / "a.log").write_text(f"a warning\n{text}half a li")
    return made


KEPT: list[Kept] = [("a-1", 1), ("a-2", 1)]
SAID = [("leads", 1, 0), ("wrote", 1, 1), ("leads", 2, 0), ("wrote", 2, 1)]


def test_members_that_keep_to_their_terms_break_nothing(tmp_path: Path) -> None:
    assert not any(verdict(cast(tmp_path, *SAID), KEPT).values())


def test_one_term_of_two_leaders_breaks_i2(tmp_path: Path) -> None:
    assert verdict(cast(tmp_path, *SAID, ("leads", 2, 0)), KEPT)["I2"] != []


def test_an_older_term_after_a_newer_breaks_i3(tmp_path: Path) -> None:
    assert verdict(cast(tmp_path, *SAID), KEPT[::-1])["I3"] != []


def test_an_acknowledged_write_that_is_lost_breaks_i5(tmp_path: Path) -> None:
    assert verdict(cast(tmp_path, *SAID), KEPT[:1])["I5"] != []


def test_what_was_not_looked_at_is_not_called_sound(tmp_path: Path) -> None:
    made = cast(tmp_path, *SAID)
    found = shown(made, verdict(made, KEPT), [], {})["broken"]
    assert isinstance(found, dict)
    assert {name for name, texts in found.items() if texts is None} == {
        "I1",
        "I4",
        "I6",
        "I7",
        "I8",
    }


def test_a_member_that_only_stands_by_was_heard(tmp_path: Path) -> None:
    assert cast(tmp_path, ("stands by", 0, 0)).says("a", "stands by")
