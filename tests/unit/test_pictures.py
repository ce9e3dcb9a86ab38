"""The pictures of a run: what they show, and when there is nothing to show."""

import math
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fedsecure.pictures import (
    INK,
    LEADERS,
    LINE,
    Picture,
    Reign,
    epsilon_picture,
    learning_picture,
    reigns,
    timeline_picture,
)
from tests.fakes import figures

PRIVACY: dict[str, Any] = figures.summary()["privacy"]


@pytest.fixture(scope="module")
def drawn() -> dict[str, Picture]:
    rounds, summary = figures.rounds(), figures.summary()
    found = (
        learning_picture(rounds, summary),
        epsilon_picture(rounds, PRIVACY),
        timeline_picture(rounds, figures.timeline()),
    )
    return {picture.name: picture for picture in found if picture is not None}


def words(picture: Picture) -> str:
    root = ET.fromstring(picture.svg)  # noqa: S314 - drawn by us
    return " ".join(
        "".join(node.itertext()) for node in root.iter() if "text" in node.tag
    )


@pytest.mark.parametrize("name", ["accuracy", "epsilon", "timeline"])
def test_a_picture_is_png_and_svg(drawn: dict[str, Picture], name: str) -> None:
    assert drawn[name].png.startswith(b"\x89PNG")
    assert ET.fromstring(drawn[name].svg).tag.endswith("svg")  # noqa: S314


@pytest.mark.parametrize("name", ["accuracy", "epsilon", "timeline"])
def test_ink_follows_the_readers_setting(drawn: dict[str, Picture], name: str) -> None:
    svg = drawn[name].svg.decode()
    body = svg.partition("*{stroke-linejoin")[2]
    assert "prefers-color-scheme:dark" in svg
    assert "var(--ink)" in body
    assert INK not in body
    assert LINE not in body


def test_a_picture_is_drawn_the_same_again(drawn: dict[str, Picture]) -> None:
    assert epsilon_picture(figures.rounds(), PRIVACY) == drawn["epsilon"]


def test_both_baselines_stand_beside_the_accuracy(drawn: dict[str, Picture]) -> None:
    said = words(drawn["accuracy"])
    assert "without protection 95.8%" in said
    assert "centralised 96.4%" in said


def test_the_curve_ends_with_the_final_evaluation(drawn: dict[str, Picture]) -> None:
    assert "90.4%" in words(drawn["accuracy"])


def test_sites_that_spent_alike_share_a_line(drawn: dict[str, Picture]) -> None:
    assert "site-01, site-02, site-03: 7.998" in words(drawn["epsilon"])


def test_a_site_that_spent_otherwise_has_its_own_line() -> None:
    rounds = figures.rounds()
    rounds[-1]["epsilon"]["site-02"] = 9.0
    picture = epsilon_picture(rounds, PRIVACY)
    assert picture is not None
    assert "site-02: 9.000" in words(picture)


@pytest.mark.parametrize(("sites", "named"), [(3, True), (12, True), (13, False)])
def test_lines_are_named_up_to_twelve(sites: int, named: bool) -> None:
    spent = {f"site-{i:02d}": 1.0 + i for i in range(sites)}
    picture = epsilon_picture([{"round": 1, "epsilon": spent}], PRIVACY)
    assert picture is not None
    assert ("site-00: 1.000" in words(picture)) is named


def test_the_kill_and_the_time_without_a_leader_are_marked(
    drawn: dict[str, Picture],
) -> None:
    said = words(drawn["timeline"])
    assert "SIGKILL" in said
    assert "no leader 3.42 s" in said


def test_each_leader_has_its_colour(drawn: dict[str, Picture]) -> None:
    svg = drawn["timeline"].svg.decode()
    assert LEADERS[0] in svg
    assert LEADERS[1] in svg
    assert LEADERS[2] not in svg


def test_a_name_with_dollar_signs_is_drawn_as_it_is() -> None:
    spent = [{"round": 1, "epsilon": {r"$\no$": 1.0}}]
    picture = epsilon_picture(spent, PRIVACY)
    assert picture is not None
    assert r"$\no$: 1.000" in words(picture)


def test_a_picture_is_told_in_words(drawn: dict[str, Picture]) -> None:
    assert (
        "agg-1 led term 1 from 0.4 s to 8.0 s and was killed" in drawn["timeline"].alt
    )


def test_without_metrics_there_is_no_curve() -> None:
    hidden = [{**row, "loss": None, "accuracy": None} for row in figures.rounds()]
    assert learning_picture(hidden, figures.summary(final={})) is None


def test_without_privacy_there_is_no_epsilon() -> None:
    open_rounds = [{**row, "epsilon": {}} for row in figures.rounds()]
    assert epsilon_picture(open_rounds, PRIVACY) is None


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


def test_a_loss_of_nothing_is_drawn_too() -> None:
    summary = figures.summary(final={"loss": 0.0, "accuracy": None})
    assert learning_picture([{"round": 1, "loss": 0.0}], summary) is not None


def test_a_loss_that_diverged_is_left_out() -> None:
    rounds = [{"round": 1, "loss": 2.0}, {"round": 2, "loss": math.inf}]
    picture = learning_picture(rounds, figures.summary(final={"loss": math.nan}))
    assert picture is not None
    assert "loss 2 to 2" in picture.alt
