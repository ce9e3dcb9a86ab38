"""What every way to run a federation promises, asked of every plug of the socket."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedsecure import experiment, registry
from fedsecure.backends import Job, Outcome
from fedsecure.composition import composed
from fedsecure.config import RunConfig
from fedsecure.disk import SystemDisk
from fedsecure.errors import UnknownPlug
from fedsecure.ledger import verify_ledger
from fedsecure.summary import digest
from fedsecure.trainer import JSON

MARKS = {
    "deployment": [pytest.mark.integration, pytest.mark.flower],
    "ray": [pytest.mark.ray],
}
ROUNDS, SITES = 3, 2
PARAMETERS = [
    pytest.param(name, marks=[*MARKS.get(name, []), pytest.mark.timeout(290)], id=name)
    for name in registry.names("backends")
]


@dataclass(frozen=True, slots=True)
class Ran:
    """A run on one backend, and all it said while it ran."""

    outcome: Outcome
    folder: Path
    plan: Mapping[str, JSON]
    shown: list[Mapping[str, JSON]]


def run(name: str, root: Path, *overrides: str) -> Ran:
    config = configured(name, root, *overrides)
    parts = experiment._simulated(config)
    kits, folder = experiment._kits(config, root), root / "run"
    plan = experiment.make_plan(config, kits, parts)
    folder.mkdir()
    shown: list[Mapping[str, JSON]] = []
    backend = registry.load("backends", name).create({})
    outcome = backend.run(Job(config, plan, kits, folder, shown.append))
    return Ran(outcome, folder, plan, shown)


def configured(name: str, root: Path, *overrides: str) -> RunConfig:
    return composed(
        [
            f"backend={name}",
            "data=breast_cancer",
            "model=logistic",
            "privacy=example_local",
            "privacy.target_epsilon=8",
            "encryption=insecure_plain",
            f"federation.sites={SITES}",
            f"federation.rounds={ROUNDS}",
            f"run_root={root}",
            *overrides,
        ]
    )


@pytest.fixture(scope="module", params=PARAMETERS)
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    if (
        request.param == "deployment"
    ):  # dear: the run of tests/integration/test_failover
        made = request.getfixturevalue("deployed")
        return Ran(made.outcome, made.folder, made.plan, made.shown)
    return run(str(request.param), tmp_path_factory.mktemp(str(request.param)))


def events(ran: Ran, kind: str) -> list[Mapping[str, JSON]]:
    return [event for event in ran.outcome.events if event["event"] == kind]


def test_all_rounds_are_released_in_order(ran: Ran) -> None:
    assert [event["round"] for event in events(ran, "released")] == [1, 2, 3]


def test_all_sites_take_part(ran: Ran) -> None:
    for event in events(ran, "released"):
        assert event["participants"] == ran.plan["sites"]


def test_events_are_in_the_order_of_time(ran: Ran) -> None:
    times = [float(str(event["now"])) for event in ran.outcome.events]
    assert times == sorted(times)
    assert len(times) > 0


def test_run_is_finished_once(ran: Ran) -> None:
    assert len(events(ran, "finished")) == 1


def test_events_are_shown_while_it_runs(ran: Ran) -> None:
    kinds = [event["event"] for event in ran.shown]
    assert kinds.count("released") == ROUNDS
    assert kinds.index("opened") < kinds.index("released")


def test_ledgers_of_sites_and_aggregators_verify(ran: Ran) -> None:
    sites = ran.plan["sites"]
    assert isinstance(sites, list)
    assert set(sites) < set(ran.outcome.ledgers)
    for path in ran.outcome.ledgers.values():
        verify_ledger(path, SystemDisk())


def test_epsilon_rises_with_each_round(ran: Ran) -> None:
    for history in ran.outcome.epsilons.values():
        assert len(history) == ROUNDS
        assert 0 < history[0] < history[1] < history[2] <= 8.0


def test_summary_counts_nothing_lost(ran: Ran) -> None:
    totals = digest(ran.outcome, ran.plan).totals
    assert (totals["rounds_lost"], totals["updates_lost"]) == (0, 0)
    assert totals["rounds_completed"] == ROUNDS


def test_every_site_is_measured_at_the_end(ran: Ran) -> None:
    (last,) = events(ran, "finished")
    metrics = last["metrics"]
    assert isinstance(metrics, dict)
    assert sorted(metrics) == ran.plan["sites"]
    assert all(isinstance(m, dict) and "loss" in m for m in metrics.values())


def test_what_is_left_lies_in_the_run_s_folder(ran: Ran) -> None:
    for path in ran.outcome.ledgers.values():
        assert path.is_relative_to(ran.folder)


def test_backends_are_the_three_of_the_house() -> None:
    assert set(registry.names("backends")) == {"inprocess", "deployment", "ray"}


def test_backend_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownPlug):
        registry.load("backends", "cluster")
