"""What a certificate says."""

from pathlib import Path
from typing import Any

import pytest

from fedsecure.accounting import Relation, guarantee, nominal
from fedsecure.certificate.statement import NOT_COVERED, software, statement
from fedsecure.certificate.traces import traces_of_folder
from fedsecure.privacy.plan import read_event
from fedsecure.release import plan_digest
from tests.fakes.certified import (
    COUNTING,
    KEY_ID,
    NONE,
    ROUNDS,
    SITES,
    WHEN,
    Keys,
    left_by_a_run,
)

ADD = Relation.ADD_OR_REMOVE_ONE


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def said(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return of(left_by_a_run(tmp_path_factory.mktemp("run"), keys), keys)


def of(folder: Path, keys: Keys, audit: Any = None) -> dict[str, Any]:
    traces = traces_of_folder(folder, keys.roster)
    return statement(traces, keys.issuer(), WHEN, audit)


def test_run_plan_and_promise_are_named(said: dict[str, Any]) -> None:
    assert said["run"] == "run-1"
    assert said["plan_digest"] == plan_digest(said["plan"]).hex()
    promise = said["promise"]
    assert (promise["mode"], promise["unit"]) == ("example_distributed", "example")
    assert (promise["relation"], promise["delta"]) == ("add_or_remove_one", 1e-5)


def test_both_epsilons_are_the_accountants(said: dict[str, Any]) -> None:
    (document,) = said["events"]["site-01"]
    event = read_event(document)
    assert event.steps == ROUNDS
    for row, seen in zip(said["epsilons"], (event, event.own_share()), strict=True):
        assert row["epsilon"] == guarantee("rdp", ADD, [seen], 1e-5).epsilon
        assert row["nominal_pld"] == nominal(ADD, [seen], 1e-5).epsilon


def test_every_site_tells_what_its_data_set_spent_over_all_time(
    said: dict[str, Any],
) -> None:
    assert [row["site"] for row in said["spending"]] == [*SITES]
    for row in said["spending"]:
        assert (row["dataset"], row["runs"]) == ("digits", 1)
        assert row["reservations"] == ROUNDS
        spent = [made["epsilon"] for made in row["epsilons"]]
        assert spent == [made["epsilon"] for made in said["epsilons"]]


def test_the_noise_is_described(said: dict[str, Any]) -> None:
    found = said["mechanism"]
    assert "os.urandom" in found["generator"]
    assert found["draws"] == ROUNDS * 650 * 3
    assert found["delta_with_it"] >= 1e-5


def test_who_took_part_is_counted(said: dict[str, Any]) -> None:
    assert said["participants"] == {
        "sites": 3,
        "min_contributors": 3,
        "max_colluders": 1,
        "least_seen": 2,
    }


def test_the_encryption_is_told_with_its_keys(said: dict[str, Any]) -> None:
    found = said["encryption"]
    assert found["key_ids"] == [KEY_ID]
    assert (found["scheme"], found["masking"]) == ("bfv", "pairwise")
    assert (found["masking_threshold"], found["downlink"]) == (3, "seeds")


def test_every_ledgers_head_is_named(said: dict[str, Any]) -> None:
    assert set(said["ledgers"]) == {*SITES, "agg-1"}
    assert all(len(row["head"]) == 64 for row in said["ledgers"].values())


def test_what_is_not_covered_is_told(said: dict[str, Any]) -> None:
    assert "in plain" in said["not_covered"][0]
    assert said["not_covered"][1:] == [*NOT_COVERED]
    words = " ".join(said["not_covered"])
    for matter in (
        "Preprocessing",
        "features",
        "learning rates",
        "one share of noise",
        "Side channels",
        "convolutions",
    ):
        assert matter in words


def test_metrics_that_stayed_are_not_called_released(
    keys: Keys, tmp_path: Path
) -> None:
    body = of(left_by_a_run(tmp_path, keys, metrics="none"), keys)
    assert body["not_covered"][0] == "No metrics left the sites."


def test_the_software_is_told_with_versions() -> None:
    assert {
        "python",
        "fedsecure",
        "numpy",
        "torch",
        "opacus",
        "dp-accounting",
        "tenseal",
        "cryptography",
    } == set(software())


def test_an_audit_is_repeated_and_its_absence_too(
    said: dict[str, Any], keys: Keys, tmp_path: Path
) -> None:
    assert said["audit"] is None
    body = of(left_by_a_run(tmp_path, keys), keys, {"verdict": "passed"})
    assert body["audit"] == {"verdict": "passed"}


def test_mode_none_promises_nothing_in_words(keys: Keys, tmp_path: Path) -> None:
    body = of(left_by_a_run(tmp_path, keys, NONE), keys)
    assert body["promise"]["said"].startswith("Nothing is promised")
    assert (body["epsilons"], body["events"], body["spending"]) == ([], {}, [])
    assert body["mechanism"] is None


def test_neither_row_counts_nor_fingerprints_are_in_it(said: dict[str, Any]) -> None:
    words = str({k: v for k, v in said.items() if k not in {"plan", "issuer"}})
    assert "fingerprint" not in words
    assert "rows'" not in words


def test_counts_that_left_are_stated_and_not_called_uncovered(
    keys: Keys, tmp_path: Path
) -> None:
    body = of(left_by_a_run(tmp_path / "dp", keys, told=1, **COUNTING), keys)
    silent = of(left_by_a_run(tmp_path / "none", keys, metrics="none"), keys)
    assert "only counts with noise left" in body["not_covered"][0]
    assert (body["counts"]["charged"], silent["counts"]) == (1, None)
    for more, less in zip(body["epsilons"], silent["epsilons"], strict=True):
        assert more["epsilon"] > less["epsilon"]
    assert body["mechanism"]["draws"] == silent["mechanism"]["draws"]
