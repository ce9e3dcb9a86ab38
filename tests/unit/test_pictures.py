"""The pictures of a run: what they show, and when there is nothing to show."""

import math
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fedsecure.pictures import (
    INK,
    LINE,
    Picture,
    epsilon_picture,
    learning_picture,
)
from fedsecure.timeline import timeline_picture
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


def test_a_name_with_dollar_signs_is_drawn_as_it_is() -> None:
    spent = [{"round": 1, "epsilon": {r"$\no$": 1.0}}]
    picture = epsilon_picture(spent, PRIVACY)
    assert picture is not None
    assert r"$\no$: 1.000" in words(picture)


def test_without_metrics_there_is_no_curve() -> None:
    hidden = [{**row, "loss": None, "accuracy": None} for row in figures.rounds()]
    assert learning_picture(hidden, figures.summary(final={})) is None


def test_without_privacy_there_is_no_epsilon() -> None:
    open_rounds = [{**row, "epsilon": {}} for row in figures.rounds()]
    assert epsilon_picture(open_rounds, PRIVACY) is None


def test_a_loss_of_nothing_is_drawn_too() -> None:
    summary = figures.summary(final={"loss": 0.0, "accuracy": None})
    assert learning_picture([{"round": 1, "loss": 0.0}], summary) is not None


def test_a_loss_that_diverged_is_left_out() -> None:
    rounds = [{"round": 1, "loss": 2.0}, {"round": 2, "loss": math.inf}]
    picture = learning_picture(rounds, figures.summary(final={"loss": math.nan}))
    assert picture is not None
    assert "loss 2 to 2" in picture.alt


def test_accuracy_of_noisy_counts_is_drawn_with_its_deviation(
    drawn: dict[str, Picture],
) -> None:
    hidden = [{**row, "loss": None} for row in figures.rounds()]
    noisy = [{**row, "accuracy_noise": 0.05} for row in hidden]
    final = {"accuracy": 0.9, "accuracy_noise": 0.02}
    picture = learning_picture(noisy, figures.summary(final=final))
    assert picture is not None
    assert "with one deviation of the noise" in words(picture)
    assert "deviation of the noise" not in words(drawn["accuracy"])


def test_noise_known_of_the_last_point_alone_is_drawn_there() -> None:
    hidden = [{**row, "loss": None, "accuracy": None} for row in figures.rounds()]
    final = {"accuracy": 0.9, "accuracy_noise": 0.02}
    picture = learning_picture(hidden, figures.summary(final=final))
    assert picture is not None
    assert "90.0%" in words(picture)
