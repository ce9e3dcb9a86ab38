"""What a run left, read for its certificate."""

from pathlib import Path

import pytest

from fedsecure.certificate.traces import (
    Traces,
    least_participants,
    traces_of_folder,
    traces_of_kit,
)
from fedsecure.errors import ConfigurationError, LedgerCorrupt
from fedsecure.registry import load
from fedsecure.shelf import Shelf
from tests.fakes.certified import SITES, SIZE, Keys, left_by_a_run, plan


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def folder(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_by_a_run(tmp_path_factory.mktemp("run"), keys)


@pytest.fixture(scope="module")
def traces(folder: Path, keys: Keys) -> Traces:
    return traces_of_folder(folder, keys.roster)


def test_every_owners_ledger_is_found_and_sites_are_known(traces: Traces) -> None:
    assert set(traces.ledgers) == {*SITES, "agg-1"}
    assert traces.sites == set(SITES)


def test_the_models_size_is_what_the_run_began_with(traces: Traces) -> None:
    assert traces.parameters == SIZE


def test_ledgers_of_daemons_are_found_by_their_names(
    folder: Path, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "ledgers").mkdir()
    (tmp_path / "plan.json").write_bytes((folder / "plan.json").read_bytes())
    source = folder / "sites" / "site-02" / "ledger.jsonl"
    (tmp_path / "ledgers" / "site-02.jsonl").write_bytes(source.read_bytes())
    assert set(traces_of_folder(tmp_path, keys.roster).ledgers) == {"site-02"}


def test_the_least_participants_are_those_of_the_smallest_sum(traces: Traces) -> None:
    assert least_participants(traces) == 2


def test_nobody_took_part_where_nothing_was_opened() -> None:
    assert least_participants(Traces(plan(), {}, frozenset(), 0)) is None


def test_lines_of_other_runs_are_not_of_this_one(traces: Traces) -> None:
    other = Traces({**traces.plan, "run": "run-2"}, traces.ledgers, traces.sites, 0)
    assert traces.of_run("budget.reserve")
    assert other.of_run("budget.reserve") == []


def test_an_owner_who_is_no_member_is_named(folder: Path, keys: Keys) -> None:
    few = Keys(members={"site-01": keys.members["site-01"]})
    with pytest.raises(LedgerCorrupt, match="'site-02' is no member"):
        traces_of_folder(folder, few.roster)


@pytest.mark.parametrize("text", ["{", "3", "{}"])
def test_a_plan_that_is_none_is_refused(tmp_path: Path, keys: Keys, text: str) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"plan\.json"):
        traces_of_folder(tmp_path, keys.roster)


def test_a_sites_kit_tells_of_the_runs_it_took_part_in(
    folder: Path, keys: Keys, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    Shelf(
        load("stores", "local").create({"path": state / "shelf"}), "run-1", 1 << 20
    ).keep_plan(plan())
    source = folder / "sites" / "site-01" / "ledger.jsonl"
    (state / "ledger.jsonl").write_bytes(source.read_bytes())
    found = traces_of_kit(tmp_path, "run-1", "site-01", keys.roster)
    assert (set(found.ledgers), found.run) == ({"site-01"}, "run-1")


def test_a_run_that_a_site_never_joined_is_named(tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(ConfigurationError, match="never joined a run 'run-9'"):
        traces_of_kit(tmp_path, "run-9", "site-01", keys.roster)
