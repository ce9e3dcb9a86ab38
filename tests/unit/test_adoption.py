"""docs/adopt.md runs as it is printed; what `adopt` cannot honour is refused."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedsecure.adoption import Federation, adopt
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError
from fedsecure.flower.rollcall import WHO
from fedsecure.ledger import verify_ledger
from fedsecure.trainer import TrainingResult, TrainingTask
from fedsecure.update import JSON, Layout, Vector

PAGE = (Path(__file__).parents[2] / "docs" / "adopt.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
DIFF = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)[0]


class NoTrainer:
    """Never asked: who a site is needs no rows."""

    def initial(self, settings: Any) -> tuple[Layout, Vector]:
        raise NotImplementedError

    def run(self, task: TrainingTask) -> TrainingResult:
        raise NotImplementedError

    def rows(self) -> int:
        raise NotImplementedError

    def users(self) -> int:
        raise NotImplementedError


def executed(engine: str) -> dict[str, Any]:
    """Run the page's blocks, with one of its two ways to start them."""
    other = {"InMemoryFederation": "run_simulation"}.get(engine, "InMemoryFederation")
    space: dict[str, Any] = {"__name__": "__main__"}  # ray sends it by value
    for block in BLOCKS:
        if other not in block:
            exec(compile(block, "docs/adopt.md", "exec"), space)  # noqa: S102
    return space


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("adopt"))
        return executed("InMemoryFederation")


def context(partition: object) -> Any:
    return SimpleNamespace(node_config={"partition-id": partition})


def test_accuracy_of_the_page_rises_over_three_rounds(page: dict[str, Any]) -> None:
    accuracy = page["accuracy"]
    assert len(accuracy) == 4
    assert accuracy[0] < 0.3
    assert accuracy[3] > 0.85
    assert accuracy == sorted(accuracy)


def test_the_final_model_of_the_page_predicts(page: dict[str, Any]) -> None:
    _, (x, y) = page["load_data"](0, 3)
    assert page["test_fn"](page["net"], x, y)["accuracy"] > 0.85


def test_every_ledger_of_the_page_verifies(page: dict[str, Any]) -> None:
    federation: Federation = page["federation"]
    for name in (*federation.sites, "agg-1"):
        path = Path(federation.folder) / name / "state" / "ledger.jsonl"
        assert len(verify_ledger(path, SystemDisk())) > 3


def test_the_aggregator_of_the_page_holds_no_model_in_plain(
    page: dict[str, Any],
) -> None:
    federation: Federation = page["federation"]
    model = torch.cat([torch.tensor(v).flatten() for v in federation.model().values()])
    needle = model.numpy().astype("<f8").tobytes()[:64]
    stored = [p for p in Path(federation.folder).rglob("*") if p.is_file()]
    held = {p.relative_to(federation.folder).parts[0] for p in stored if has(p, needle)}
    assert held == set(federation.sites)


def has(path: Path, needle: bytes) -> bool:
    return needle in path.read_bytes()


def test_row_counts_stay_at_the_site(page: dict[str, Any]) -> None:
    told = [
        metrics for round_ in page["federation"].scores() for metrics in round_.values()
    ]
    assert len(told) == 12
    assert all("num-examples" not in metrics for metrics in told)


def test_every_added_line_of_the_diff_is_in_the_code() -> None:
    added = [line[1:].strip() for line in DIFF.splitlines() if line[:1] == "+"]
    code = "\n".join(BLOCKS)
    assert len(added) > 4
    assert [line for line in added if line not in code] == []


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
def test_the_page_runs_on_flowers_simulation_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    scores = executed("run_simulation")["federation"].scores()
    assert len(scores) == 4
    assert all(float(m["accuracy"]) > 0.8 for m in scores[3].values())


# --- adopt --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    train: dict[str, JSON] = {"lr": 0.1}
    return adopt(tmp_path_factory.mktemp("f"), sites=2, rounds=3, train=train)


def test_adopting_again_takes_what_is_there(federation: Federation) -> None:
    again = adopt(federation.folder, sites=2, rounds=3, train={"lr": 0.1})
    assert again == federation


def test_another_plan_in_the_same_run_is_refused(federation: Federation) -> None:
    with pytest.raises(ConfigurationError, match="another plan than asked for"):
        adopt(federation.folder, sites=2, rounds=4)


def test_another_run_of_the_same_sites_has_a_plan_of_its_own(
    federation: Federation,
) -> None:
    other = adopt(federation.folder, sites=2, rounds=4, run="run-2")
    assert other.plan["federation"] == federation.plan["federation"]
    assert other.plan["run"] == "run-2"


@pytest.mark.parametrize("partition", [None, 2, -1, "0"])
def test_a_node_that_is_no_site_is_refused(
    partition: object, federation: Federation
) -> None:
    with pytest.raises(ConfigurationError, match=r"partition-id=.*, must be 0 to 1"):
        federation.site(context(partition))


def test_a_site_says_its_name_when_it_is_asked(federation: Federation) -> None:
    assert federation.site(context(1)).answer(WHO, NoTrainer()).to_bytes() == b"site-02"


def test_a_model_that_no_site_has_is_refused(federation: Federation) -> None:
    with pytest.raises(ConfigurationError, match="site-01 has no model after round 3"):
        federation.model()
