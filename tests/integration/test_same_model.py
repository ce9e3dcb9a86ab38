"""One experiment gives one model, bit for bit, in one process and in eleven."""

from pathlib import Path

import numpy as np
import pytest

from fedsecure import experiment, registry
from fedsecure.backends import Job
from fedsecure.composition import composed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]

ROUNDS = 2


def last_models(folder: Path, pattern: str) -> dict[str, bytes]:
    """Return every site's model after the last round, by site."""
    found = folder.glob(f"{pattern}/shelf/*/model/{ROUNDS}")
    return {
        path.parts[-5 if "state" not in path.parts else -6]: path.read_bytes()
        for path in found
    }


def models_of(backend: str, folder: Path) -> dict[str, bytes]:
    config = composed(
        [
            f"backend={backend}",
            "privacy=none",  # noise is never the same twice
            f"federation.rounds={ROUNDS}",
            f"run_root={folder}",
        ]
    )
    parts = experiment._simulated(config)
    kits = experiment._kits(config, folder)
    plan = experiment.make_plan(config, kits, parts)
    run = folder / "run"
    run.mkdir()
    plug = registry.load("backends", backend).create({})
    plug.run(Job(config, plan, kits, run, lambda _: None))
    where = kits if backend == "deployment" else run / "sites"
    return last_models(where, "*/state" if backend == "deployment" else "*")


def test_inprocess_and_deployment_give_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    one = models_of("inprocess", tmp_path_factory.mktemp("a"))
    many = models_of("deployment", tmp_path_factory.mktemp("b"))
    assert len(one) == len(many) == 3
    assert one == many
    first = next(iter(one.values()))
    assert np.count_nonzero(np.frombuffer(first, dtype="<f8")) > 0
