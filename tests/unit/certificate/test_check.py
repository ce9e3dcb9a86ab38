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
from tests.fakes.certified import COUNTING, NONE, WHEN, Keys, left_by_a_run

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


# --- counts ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counting(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Body:
    folder = left_by_a_run(tmp_path_factory.mktemp("run"), keys, told=1, **COUNTING)
    traces = traces_of_folder(folder, keys.roster)
    return statement(traces, keys.issuer(), WHEN, audit=None)


def test_an_honest_certificate_of_counts_is_computed_again(
    keys: Keys, counting: Body
) -> None:
    assert checked(keys, counting) == counting["epsilons"]


def _told(body: Body, site: str = "site-02") -> dict[str, Any]:
    kinds = {event["type"]: event for event in body["events"][site]}
    found: dict[str, Any] = kinds["discrete_gaussian_counts"]
    return found


COUNT_CHANGES: list[tuple[str, Callable[[Body], object], str]] = [
    (
        "left out",
        lambda b: [b["events"][s].remove(_told(b, s)) for s in [*b["events"]]],
        "counts: charged 1, must be 0",
    ),
    (
        "more noise",
        lambda b: _told(b).update(noise_multiplier=80.0),
        "site-02 told counts with noise of 80.0 rows, its plan allows 8.0",
    ),
    (
        "sampled",
        lambda b: _told(b).update(sample_rate=0.1),
        "site-02 told counts with noise of 8.0 rows",
    ),
    ("more often", lambda b: _told(b).update(steps=3), "charged 1, must be 3"),
    (
        "cheaper",
        lambda b: b["counts"]["epsilons"][0].update(epsilon=0.1),
        "the counts against everybody but the site itself: epsilon 0.1 is stated",
    ),
    ("not stated", lambda b: b.pop("counts"), "None is no section"),
    ("other noise", lambda b: b["counts"].update(noise_multiplier=9), "counts: noise"),
    ("sensitivity", lambda b: b["counts"].update(sensitivity=0), "sensitivity 0, must"),
    (
        "model's epsilon without them",
        lambda b: b["epsilons"][0].update(epsilon=0.99 * b["epsilons"][0]["epsilon"]),
        "is stated, its events cost",
    ),
]


@pytest.mark.parametrize(
    ("change", "said"),
    [(c, s) for _, c, s in COUNT_CHANGES],
    ids=[n for n, _, _ in COUNT_CHANGES],
)
def test_counts_that_do_not_follow_are_named(
    keys: Keys, counting: Body, change: Callable[[Body], object], said: str
) -> None:
    body = deepcopy(counting)
    change(body)
    with pytest.raises(VerificationError) as caught:
        checked(keys, body)
    assert said in str(caught.value)


def test_counts_that_no_plan_allows_are_named(
    keys: Keys, made: Body, counting: Body
) -> None:
    body = deepcopy(made)
    body["events"]["site-02"].append(_told(counting))
    with pytest.raises(VerificationError, match=r"8\.0 rows, its plan allows None"):
        checked(keys, body)
