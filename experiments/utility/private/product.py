"""The same arm by the product: its engine on tensors, and its whole path with wires."""

import tempfile

import numpy as np
import torch

from fedsecure.config import RunConfig
from fedsecure.experiment import run_experiment
from fedsecure.learning.evaluation import LOSSES
from fedsecure.learning.models import build
from fedsecure.privacy.engine import PrivateEngine
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import IntVector
from private.federation import Seeded, Setting, lattice, shared_plan
from private.problems import DELTA, SITES, Problem, section

_CLOSE = 2e-6
"""Of a clipped sum: the engine's gradients are float32."""


def check_engine(problem: Problem, setting: Setting, epsilon: float) -> float:
    """Compare one step of all sites with the product's engine; same bytes, same noise.

    Returns
    -------
    float
        The largest difference of a coordinate, over the largest coordinate's size.

    Raises
    ------
    AssertionError
        It is more than float32 explains.
    """
    plan = shared_plan(problem.name, setting, epsilon, 4)
    grid = lattice(plan, problem.first.size)
    worst = 0.0
    for i, rows in enumerate(problem.sites):
        ours = problem.clipped_sum(problem.first, rows, setting.clip_norm)
        expected = grid.contribute(ours, Seeded("check", i))[0]
        theirs = _engine_integers(problem, i, setting, plan, grid)
        largest = np.abs(ours).max() * grid.steps
        worst = max(worst, float(np.abs(theirs - expected).max() - 1) / largest)
    if worst > _CLOSE * max(len(rows) for rows in problem.sites):
        raise AssertionError(f"the engine's sum is another one: {worst:.2e}")
    return max(worst, 0.0)


def _engine_integers(
    problem: Problem, index: int, setting: Setting, plan: PrivacyPlan, grid: Lattice
) -> IntVector:
    data = problem.data[index]
    module = build({"name": "logistic"}, data.input_shape, data.outputs, problem.split)
    loss, source = LOSSES[data.task], Seeded("check", index)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    with PrivateEngine(
        module, plan, loss, source, learning_rate=setting.rate
    ) as engine:
        found: IntVector = engine.contribute(x, y, grid)[0]
    return found


def whole_path(problem: Problem, setting: Setting, epsilon: float) -> float:
    """Return the accuracy of a split with keys, wires, encryption and ledgers."""
    plan = shared_plan(problem.name, setting, epsilon, 4)
    with tempfile.TemporaryDirectory(prefix="utility-") as folder:
        config = RunConfig.parse(
            {
                "data": section(problem.name, problem.split),
                "seed": problem.split,
                "train": {"learning_rate": setting.rate},
                "privacy": {
                    "mode": "example_distributed",
                    "target_epsilon": epsilon,
                    "clip_norm": setting.clip_norm,
                    "sample_rate": setting.sample_rate,
                    "steps_per_round": 1,
                    "delta": DELTA,
                    "divisor": plan.divisor,
                },
                "federation": {"sites": SITES, "rounds": setting.steps},
                "backend": {"name": "inprocess"},
                "store": {"name": "memory"},
                "baselines": False,
                "run_root": folder,
            }
        )
        final = run_experiment(config, lambda _: None).summary["final"]
    accuracy = final["accuracy"] if isinstance(final, dict) else "no figure"
    return 100 * float(str(accuracy))
