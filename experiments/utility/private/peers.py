"""What the peers offer at the same epsilon, with their traps avoided.

Opacus is run. Flower's fixed clipping is its arithmetic, for the functions are private
ones of flwr: a factor min(1, C / norm) on each update, and normal noise of standard
deviation z C / clients on the mean (dp_fixed_clipping.py, flwr 1.41).
"""

import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedsecure.update import Vector
from private.federation import Setting, central_noise
from private.problems import DELTA, SITES, Problem, Rows


@cache
def opacus_noise(setting: Setting, epsilon: float) -> float:
    """Return what Opacus calibrates, by its tightest accountant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # log 0 at a rate of 1, which it then masks
        found = get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=DELTA,
            sample_rate=setting.sample_rate,
            steps=setting.steps,
            accountant="prv",
        )
    return float(found)


def opacus_per_site(
    problem: Problem, setting: Setting, epsilon: float, draw: int
) -> float:
    """Return the accuracy of Opacus at each site and FedAvg over the sites.

    One engine a site for the whole run, not one a round: the epsilon is true. All
    sites weigh the same, as the product's do. Opacus takes its divisor from the rows.
    """
    torch.manual_seed(1000 * problem.split + draw)
    z = opacus_noise(setting, epsilon)
    sites = [_private(problem, rows, setting, z) for rows in problem.sites]
    model = torch.from_numpy(problem.first).float()
    for _ in range(setting.steps // setting.steps_per_round):
        ends = []
        for module, optimizer, loader in sites:
            # A copy: weights become views of it, and steps are taken in place.
            nn.utils.vector_to_parameters(model.clone(), module.parameters())
            _steps(problem, module, optimizer, loader, setting.steps_per_round)
            ends.append(nn.utils.parameters_to_vector(module.parameters()).detach())
        model = torch.stack(ends).mean(0)
    return problem.accuracy(model.double().numpy())


def _private(problem: Problem, rows: Rows, setting: Setting, z: float) -> Any:
    module = nn.Linear(rows.x.shape[1] - 1, problem.outputs)
    data = TensorDataset(
        torch.from_numpy(rows.x[:, :-1]).float(), torch.from_numpy(rows.y)
    )
    batch = max(1, round(len(rows) * setting.sample_rate))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its generator is not a secure one
        return PrivacyEngine(accountant="rdp").make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), setting.rate),
            data_loader=DataLoader(data, batch_size=batch),
            noise_multiplier=z,
            max_grad_norm=setting.clip_norm,
        )


def _steps(
    problem: Problem, module: Any, optimizer: Any, loader: Any, count: int
) -> None:
    done = 0
    while done < count:
        for x, y in loader:
            optimizer.zero_grad()
            scores = module(x)
            if problem.outputs == 1:
                loss = nn.functional.binary_cross_entropy_with_logits(
                    scores[:, 0], y.float()
                )
            else:
                loss = nn.functional.cross_entropy(scores, y)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # full backward hooks on a leaf's input
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            if done == count:
                return


def flower_fixed(
    problem: Problem, setting: Setting, epsilon: float, draw: int
) -> float:
    """Return the accuracy of DifferentialPrivacyServerSideFixedClipping at its epsilon.

    The unit is a site, all of whose rows are hidden together; the server draws the
    noise and sees every update.
    """
    noise = np.random.default_rng([2, problem.split, draw])
    z = central_noise(setting.steps, 1.0, epsilon, "pld")
    deviation, model = z * setting.clip_norm / SITES, problem.first
    for _ in range(setting.steps):
        moves = [
            _trained(problem, rows, model, setting) - model for rows in problem.sites
        ]
        mean = np.mean(
            [m * min(1.0, setting.clip_norm / float(np.linalg.norm(m))) for m in moves],
            0,
        )
        model = model + mean + noise.normal(0, deviation, model.size)
    return problem.accuracy(model)


def _trained(problem: Problem, rows: Rows, model: Vector, setting: Setting) -> Vector:
    for _ in range(setting.steps_per_round):
        model = model - setting.rate * problem.gradient(model, rows)
    return model
