"""One experiment gives one model, bit for bit: in one process, in eleven, and in eleven
whose leader's host is lost in mid-round.

In `make chaos`: each of the runs takes a minute. Deaths at each durable step are in
`tests/simulation/test_final_model.py`, storms of all faults in `tests/chaos/storms.py`.
"""

from pathlib import Path

import numpy as np
import pytest

from fedsecure import experiment, registry
from fedsecure.backends import Job
from fedsecure.composition import composed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.flower,
    pytest.mark.chaos,
    pytest.mark.timeout(280),
]

ROUNDS = 2
SMALL = (
    "data=breast_cancer",
    "model=logistic",
    "federation.sites=2",
    "encryption=insecure_plain",
)


def last_models(folder: Path, pattern: str) -> dict[str, bytes]:
    """Return every site's model after the last round, by site."""
    found = folder.glob(f"{pattern}/shelf/*/model/{ROUNDS}")
    return {
        path.parts[-5 if "state" not in path.parts else -6]: path.read_bytes()
        for path in found
    }


def models_of(
    backend: str, folder: Path, *more: str, leaders: int = 1
) -> dict[str, bytes]:
    """Return every site's last model of a run that had so many leaders."""
    config = composed(
        [
            f"backend={backend}",
            "privacy=none",  # noise is never the same twice
            f"federation.rounds={ROUNDS}",
            f"run_root={folder}",
            *more,
        ]
    )
    parts = experiment._simulated(config)
    kits = experiment._kits(config, folder)
    plan = experiment.make_plan(config, kits, parts)
    run = folder / "run"
    run.mkdir()
    plug = registry.load("backends", backend).create({})
    events = plug.run(Job(config, plan, kits, run, lambda _: None)).events
    assert len({e["term"] for e in events if e["event"] == "leader"}) == leaders
    where = kits if backend == "deployment" else run / "sites"
    return last_models(where, "*/state" if backend == "deployment" else "*")


def test_inprocess_and_deployment_give_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    one = models_of("inprocess", tmp_path_factory.mktemp("a"))
    assert len(one) == 3
    assert models_of("deployment", tmp_path_factory.mktemp("b")) == one
    first = next(iter(one.values()))
    assert np.count_nonzero(np.frombuffer(first, dtype="<f8")) > 0


def test_a_leader_lost_in_mid_round_changes_no_bit(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    one = models_of("inprocess", tmp_path_factory.mktemp("a"), *SMALL)
    assert len(one) == 2
    lost = (*SMALL, f"backend.kill_leader_in_round={ROUNDS}")
    folder = tmp_path_factory.mktemp("b")
    assert models_of("deployment", folder, *lost, leaders=2) == one
