"""What a run leaves to read."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedsecure.pictures import Picture
from fedsecure.report import report_page, write_report
from tests.fakes import figures

VOID = {"meta", "img"}


class Outline(HTMLParser):
    """Reads a page and keeps what tests ask about; fails on a tag left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = {name: value or "" for name, value in attrs}
        self.links += [values[n] for n in ("src", "href") if n in values]
        if tag == "img":
            self.alts.append(values.get("alt", ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(**changes: Any) -> str:
    return report_page(figures.summary(**changes), figures.rounds(), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run")
    write_report(made, figures.summary(), figures.rounds(), figures.timeline())
    return made


@pytest.fixture(scope="module")
def outline(folder: Path) -> Outline:
    reader = Outline()
    reader.feed((folder / "report.html").read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_a_run_leaves_its_page_its_figures_and_its_pictures(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {
        "summary.json",
        "metrics.jsonl",
        "report.html",
        "accuracy.png",
        "epsilon.png",
        "timeline.png",
    }


def test_what_is_returned_is_the_page(tmp_path: Path) -> None:
    written = write_report(tmp_path, figures.summary(), [], [])
    assert written == tmp_path / "report.html"
    assert written.is_file()


def test_summary_json_is_the_summary(folder: Path) -> None:
    assert json.loads((folder / "summary.json").read_text()) == figures.summary()


def test_metrics_hold_one_line_a_round(folder: Path) -> None:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_the_page_asks_no_other_machine(outline: Outline) -> None:
    assert outline.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in outline.links)


def test_the_page_holds_no_address(folder: Path) -> None:
    said = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in said.replace('<meta http-equiv="Content-Security', "")


def test_the_page_holds_no_script(outline: Outline) -> None:
    assert "script" not in outline.tags


def test_every_tag_is_closed(outline: Outline) -> None:
    assert outline.open == []


def test_every_picture_is_told_in_words(outline: Outline) -> None:
    assert len(outline.alts) == 3
    assert all(outline.alts)


def test_a_round_that_diverged_leaves_null_and_no_nan(tmp_path: Path) -> None:
    write_report(
        tmp_path, figures.summary(final={"accuracy": 0.1, "loss": math.inf}), [], []
    )
    assert json.loads((tmp_path / "summary.json").read_text())["final"]["loss"] is None


def test_names_from_outside_are_escaped() -> None:
    assert "<b>x" not in page(scheme="<b>x", notes=["<b>x"], ledgers={"<b>x": 1})


def test_names_in_pictures_and_rounds_are_escaped(tmp_path: Path) -> None:
    name = '"><script>alert(1)</script>'
    rounds = [{**row, "leader": name} for row in figures.rounds()]
    marks = [{**mark, "name": name} for mark in figures.timeline()]
    written = write_report(tmp_path, figures.summary(run_id=name), rounds, marks)
    reader = Outline()
    reader.feed(written.read_text(encoding="utf-8"))
    assert "script" not in reader.tags
    assert any(name in alt for alt in reader.alts)


def test_the_verdict_says_that_nothing_was_lost() -> None:
    said = page()
    assert "6 of 6 rounds were completed; the leader changed once" in said
    assert "no completed round and no accepted update was lost" in said


def test_the_verdict_says_what_was_lost() -> None:
    said = page(rounds_lost=1, updates_lost=2)
    assert "1 completed rounds and 2 accepted updates were LOST" in said


def test_a_broken_ledger_is_the_first_thing_seen() -> None:
    said = page(ledgers_verified=False)
    assert ">BROKEN<" in said
    assert ">verified<" not in said


def test_no_ledger_is_not_called_verified() -> None:
    said = page(ledgers={})
    assert "no ledger was there to verify" in said
    assert ">verified<" not in said


def test_the_final_accuracy_stands_beside_its_baselines(folder: Path) -> None:
    said = (folder / "report.html").read_text(encoding="utf-8")
    assert "<td>this run</td><td class=number>90.4%</td>" in said
    assert (
        "<td>without protection</td><td class=number>95.8%</td>"
        "<td class=number>+5.4</td>"
    ) in said


def test_a_run_without_baselines_says_so(tmp_path: Path) -> None:
    none = {"unprotected_accuracy": None, "centralised_accuracy": None}
    found = figures.summary(baseline=none)
    said = write_report(tmp_path, found, figures.rounds(), []).read_text()
    assert "no baseline was run" in said
    assert "points from this run" not in said


def test_the_rounds_say_which_model_their_accuracy_is_of() -> None:
    assert "of the model after round r - 1" in page()


def test_a_run_without_privacy_says_so() -> None:
    privacy = {"mode": "none", "delta": 1e-5, "per_site": {}}
    assert "made no promise of differential privacy" in page(privacy=privacy)


def test_metrics_that_stayed_at_the_sites_are_not_shown() -> None:
    hidden = [{**row, "loss": None, "accuracy": None} for row in figures.rounds()]
    final = {"accuracy": None, "loss": None}
    said = report_page(figures.summary(final=final), hidden, {"accuracy": None})
    assert "No metrics left the sites" in said


def test_every_site_has_its_own_line_of_epsilon() -> None:
    rows = re.findall(r"<td>(site-\d+)</td><td class=number>7.998</td>", page())
    assert rows == list(figures.SITES)


def test_many_sites_are_counted_in_the_table_of_rounds() -> None:
    crowd = [{**figures.rounds()[0], "participants": [f"s{i}" for i in range(40)]}]
    assert "<td>40 sites</td>" in report_page(figures.summary(), crowd, {})


COUNTS = {
    "noise_multiplier": 5.25,
    "each_round": False,
    "charged": 1,
    "epsilon": 0.6857,
    "accountant": "pld",
}


def told_counts() -> dict[str, Any]:
    return {**figures.summary()["privacy"], "counts": COUNTS}


def test_noisy_counts_are_called_noisy_with_their_deviation() -> None:
    final = {"accuracy": 0.89, "loss": None, "accuracy_noise": 0.029}
    summary = figures.summary(final=final, privacy=told_counts())
    said = report_page(summary, [], {"accuracy": Picture("a", "words", b"", b"<svg/>")})
    assert "± 2.9 points of noise; without protection 95.8%" in said
    assert "are added up over the sites. The last point: ± 2.9 points" in said
    assert "weighted by their test rows" not in said


def test_counts_that_are_all_noise_are_not_called_missing() -> None:
    final = {"accuracy": None, "loss": None}
    summary = figures.summary(final=final, privacy=told_counts())
    said = report_page(summary, [], {"accuracy": None})
    assert "add up to no rows" in said
    assert "privacy.metrics=none" not in said
