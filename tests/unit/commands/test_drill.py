"""The command says what a drill showed, by table, file and exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsecure.cli import app
from fedsecure.commands.drill import _ABOUT
from fedsecure.drills import catalogue
from fedsecure.drills.drill import Drill
from fedsecure.drills.history import CHECKS
from fedsecure.trainer import JSON

GOOD: dict[str, JSON] = {
    "ended": True,
    "seconds_to_leader": 0.5,
    "seconds_to_next_update": None,
    "seconds_to_next_release": 1.0,
    "updates_reused": 1,
    "rounds_lost": 0,
    "updates_lost": 0,
    "broken": {name: [] for name in CHECKS},
    "promises": [],
    "timeline": [{"at": 1.0, "what": "DRILL: something [broke]"}],
}


def carry_out(
    monkeypatch: pytest.MonkeyPatch, shown: dict[str, JSON], *lacks: str, out: Path
) -> tuple[int, str]:
    drill = Drill(lambda _folder, _clock: shown, lambda: list(lacks))
    monkeypatch.setattr(catalogue, "DRILLS", {"pause": drill})
    command = ["drill", "pause", "--repeat", "2", "--json", str(out)]
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.output


def test_a_drill_that_keeps_its_promises_ends_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, text = carry_out(monkeypatch, GOOD, out=tmp_path / "out.json")
    assert code == 0
    assert "2 of 2 repetitions kept every promise" in text
    assert "something [broke]" in text


def test_all_repetitions_are_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    carry_out(monkeypatch, GOOD, out=tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["drill"] == "pause"
    assert found["repetitions"] == [GOOD, GOOD]


@pytest.mark.parametrize(
    "bad",
    [
        {"broken": {**{name: [] for name in CHECKS}, "I3": ["a fork"]}},
        {"promises": ["it came back"]},
        {"ended": False},
    ],
)
def test_a_broken_promise_is_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: dict[str, JSON]
) -> None:
    code, text = carry_out(monkeypatch, {**GOOD, **bad}, out=tmp_path / "out.json")
    assert code == 1
    assert "0 of 2 repetitions" in text


def test_what_is_missing_is_exit_code_two(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, text = carry_out(monkeypatch, GOOD, "no nft here", out=tmp_path / "out.json")
    assert code == 2
    assert "no nft here" in text
    assert not (tmp_path / "out.json").exists()


def test_every_drill_of_the_catalogue_has_a_command() -> None:
    assert set(_ABOUT) == set(catalogue.DRILLS)
