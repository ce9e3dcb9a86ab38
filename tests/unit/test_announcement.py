"""What a run says before it begins."""

from typing import Any

import pytest

from fedsecure.announcement import announced
from fedsecure.composition import composed
from fedsecure.planning import counts_plan, private_plan
from fedsecure.update import JSON


def said(*words: str, parameters: int = 650) -> list[Any]:
    config = composed([*words])
    plan: dict[str, JSON] = {
        "run": "run-1",
        "privacy": private_plan(config).document(),
    }
    counts = counts_plan(config)
    if counts is not None:
        plan |= {"metrics": "dp", "counts": counts.document()}
    return [*announced(config, plan, parameters)]


def test_both_epsilons_and_the_relation_stand_in_the_first_line() -> None:
    (event,) = said("federation.rounds=2")
    assert "ε 3.00 against outsiders and aggregators, with at most one" in event["text"]
    assert "against all other sites together" in event["text"]
    assert "add-or-remove-one" in event["text"]
    assert event["relation"] == "add_or_remove_one"


def test_epsilon_rises_to_what_was_asked_for() -> None:
    (event,) = said("privacy.target_epsilon=3", "federation.rounds=4")
    spent = [float(e) for e in event["epsilons"]]
    assert spent == sorted(spent)
    assert len(spent) == 4
    assert spent[-1] == pytest.approx(3.0, abs=0.01)


def test_no_privacy_says_so() -> None:
    (event,) = said("privacy=none")
    assert "no differential privacy" in event["text"]
    assert (event["epsilons"], event["relation"]) == ([], "")


def test_few_silos_are_warned_before_they_begin() -> None:
    _, warned = said("privacy=silo")
    assert warned["event"] == "warned"
    assert "useless" in warned["text"]


def test_a_model_whose_size_nobody_knows_warns_of_nothing() -> None:
    assert len(said("privacy=silo", parameters=0)) == 1


@pytest.mark.parametrize(
    ("each", "words"), [("false", "once, at the end"), ("true", "5 times")]
)
def test_counts_are_announced_and_paid_for_within_the_target(
    each: str, words: str
) -> None:
    run = ("federation.rounds=4", "privacy.metrics=dp")
    (event,) = said(*run, f"privacy.metrics_each_round={each}")
    assert f"counts of test rows told {words}, with noise of " in event["text"]
    assert "ε 3.00 against outsiders" in event["text"]
    spent = [float(e) for e in event["epsilons"]]
    assert spent == sorted(spent)
    assert spent[-1] < 3.0
