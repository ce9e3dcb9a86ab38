"""A whole run under metrics dp: what the server keeps, and what is promised of it."""

from pathlib import Path
from typing import Any

import pytest

from fedsecure.accounting import COUNTS
from fedsecure.certificate.issue import FILE, verify
from fedsecure.config import RunConfig
from fedsecure.experiment import Finished, run_experiment
from fedsecure.privacy.plan import read_event

SITES, ROUNDS, TARGET = 3, 2, 3.0
TOLD = {"noisy_correct", "noisy_wrong", "noise"}
pytestmark = pytest.mark.integration


class Ran:
    """A run with every round's counts, its events and its certificate."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Any] = []
        config = RunConfig.parse(
            {
                "privacy": {
                    "mode": "example_distributed",
                    "target_epsilon": TARGET,
                    "sample_rate": 1.0,
                    "steps_per_round": 1,
                    "clip_norm": 0.5,
                    "metrics": "dp",
                    "metrics_each_round": True,
                },
                "federation": {"sites": SITES, "rounds": ROUNDS},
                "train": {"learning_rate": 16.0},
                "encryption": {"scheme": "insecure_plain"},
                "store": {"name": "memory"},
                "baselines": False,
                "run_root": str(folder),
            }
        )
        self.finished: Finished = run_experiment(config, self.events.append)
        checked = verify(self.finished.folder / FILE)
        self.certificate: dict[str, Any] = dict(checked.certificate.body)

    def metrics(self) -> list[dict[str, Any]]:
        """Return what each site told, of each model."""
        told = [e["metrics"] for e in self.events if "metrics" in e]
        return [m for sites in told for m in sites.values()]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("run"))


def test_the_server_is_told_noisy_counts_and_nothing_else(ran: Ran) -> None:
    told = ran.metrics()
    assert len(told) == SITES * (ROUNDS + 1)
    assert all(set(metrics) == TOLD for metrics in told)


def test_every_site_pays_once_for_every_release(ran: Ran) -> None:
    for events in ran.certificate["events"].values():
        read = [read_event(event) for event in events]
        assert sum(e.steps for e in read if e.kind == COUNTS) == ROUNDS + 1


def test_what_was_asked_for_includes_the_counts(ran: Ran) -> None:
    first, second = ran.certificate["epsilons"]
    assert 0.99 * TARGET <= first["epsilon"] <= TARGET
    assert second["epsilon"] > first["epsilon"]
    (alone,) = ran.certificate["counts"]["epsilons"]
    assert 0.5 * TARGET / 4 < alone["epsilon"] <= TARGET / 4


def test_the_report_says_how_far_noise_moves_accuracy(ran: Ran) -> None:
    final = ran.finished.summary["final"]
    assert isinstance(final, dict)
    assert 0 < float(str(final["accuracy_noise"])) < 1
    page = (ran.finished.folder / "report.html").read_text(encoding="utf-8")
    assert "points of noise" in page


def test_no_exact_figure_of_test_rows_lies_in_what_the_run_leaves(ran: Ran) -> None:
    folder = ran.finished.folder
    left = [p for p in folder.rglob("*.jsonl") if p.name != "metrics.jsonl"]
    assert any("noisy_correct" in path.read_text(encoding="utf-8") for path in left)
    for path in left:
        text = path.read_text(encoding="utf-8")
        assert "num_test" not in text
        assert '"loss"' not in text
