"""Figures that do not follow from the events are found, even when they are signed."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fedsecure.certificate.check import check
from fedsecure.certificate.signed import Certificate
from fedsecure.certificate.statement import statement
from fedsecure.certificate.traces import traces_of_folder
from fedsecure.errors import VerificationError
from tests.fakes.certified import NONE, WHEN, Keys, left_by_a_run

Body = dict[str, Any]


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def made(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Body:
    folder = left_by_a_run(tmp_path_factory.mktemp("run"), keys)
    return statement(
        traces_of_folder(folder, keys.roster), keys.issuer(), WHEN, audit=None
    )


def checked(keys: Keys, body: Body) -> list[Any]:
    roster = keys.roster
    return check(Certificate(body, roster.members["site-01"], roster))


def test_an_honest_certificate_is_computed_again(keys: Keys, made: Body) -> None:
    assert checked(keys, made) == made["epsilons"]


CHANGES: list[tuple[str, Callable[[Body], object], str]] = [
    (
        "epsilon too small",
        lambda b: b["epsilons"][0].update(epsilon=0.5),
        "epsilon 0.5 is stated, its events cost",
    ),
    (
        "second epsilon too small",
        lambda b: b["epsilons"][1].update(epsilon=0.5),
        "against all other sites together: epsilon 0.5 is stated",
    ),
    (
        "nominal",
        lambda b: b["epsilons"][0].update(nominal_pld=0.1),
        "nominal_pld 0.1 is stated",
    ),
    ("against", lambda b: b["epsilons"][0].update(against="all"), "against 'all'"),
    ("accountant", lambda b: b["epsilons"][0].update(accountant="pld"), "accountant"),
    ("one left out", lambda b: b["epsilons"].pop(), "states 1 epsilons of the run"),
    (
        "more noise",
        lambda b: b["events"]["site-02"][0].update(noise_multiplier=9.0),
        "an event of site-02 has noise multiplier",
    ),
    (
        "more steps",
        lambda b: b["events"]["site-02"][0].update(steps=400),
        "is stated, its events cost",
    ),
    ("another plan", lambda b: b["plan"].update(seed=8), "not the one of its digest"),
    ("another run", lambda b: b.update(run="run-2"), "certificate is of run run-2"),
    ("delta", lambda b: b["promise"].update(delta=1e-9), "says delta 1e-09"),
    ("unit", lambda b: b["promise"].update(unit="user"), "says unit 'user'"),
    (
        "spending",
        lambda b: b["spending"][2]["epsilons"][0].update(epsilon=0.1),
        "site-03's spending over all time against outsiders",
    ),
    ("no events", lambda b: b.pop("events"), "cannot be read"),
    ("events of nobody", lambda b: b.update(events=3), "cannot be read"),
]


@pytest.mark.parametrize(
    ("change", "said"), [(c, s) for _, c, s in CHANGES], ids=[n for n, _, _ in CHANGES]
)
def test_a_figure_that_does_not_follow_is_named(
    keys: Keys, made: Body, change: Callable[[Body], object], said: str
) -> None:
    body = deepcopy(made)
    change(body)
    with pytest.raises(VerificationError) as caught:
        checked(keys, body)
    assert said in str(caught.value)


def test_no_privacy_may_not_be_dressed_up(
    keys: Keys, made: Body, tmp_path: Path
) -> None:
    folder = left_by_a_run(tmp_path / "run", keys, NONE)
    traces = traces_of_folder(folder, keys.roster)
    body = statement(traces, keys.issuer(), WHEN, audit=None)
    assert checked(keys, body) == []
    body["epsilons"] = made["epsilons"]
    with pytest.raises(VerificationError, match="mode none, which has none"):
        checked(keys, body)
