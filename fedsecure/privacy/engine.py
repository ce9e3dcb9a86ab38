"""DP-SGD at one site: Poisson sample, clipped sum, noise, and a step of plain SGD.

Where the sum comes from is `gradients`; sample and noise are `mechanism`.
"""

from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.clipped import ClippedGradients
from fedsecure.privacy.gradients.examples import Loss
from fedsecure.privacy.gradients.inspection import Engine, check_module
from fedsecure.privacy.mechanism import (
    DiscreteGaussian,
    Grid,
    RandomSource,
    noisy_sum,
    poisson_mask,
)
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import Vector

__all__ = ["Engine", "Loss", "PrivateEngine", "check_module"]


class PrivateEngine:
    """Steps a module by the plan; the module's trainable weights are all it changes.

    The module must treat the examples of a batch, its first dimension, apart from each
    other. BatchNorm and the like are refused; a module that mixes examples by hand
    cannot be told from outside and makes epsilon void.

    Parameters
    ----------
    module : torch.nn.Module
        On CPU or CUDA. Hooks are attached until `close`.
    plan : PrivacyPlan
        Mode `example_local`: clip, noise, sampling and divisor are taken from it.
    loss : Loss
    source : RandomSource
        The system's generator; with any other epsilon is void.
    learning_rate, momentum : float
        Of plain SGD: what follows the noise is post-processing.
    engine : Engine or str
        How clipped sums are made; no part of the privacy event.

    Raises
    ------
    ConfigurationError
        Another mode, or a layer whose per-example gradient is not known.
    """

    def __init__(
        self,
        module: nn.Module,
        plan: PrivacyPlan,
        loss: Loss,
        source: RandomSource,
        *,
        learning_rate: float,
        momentum: float = 0.0,
        engine: Engine | str = Engine.AUTO,
    ) -> None:
        """Check the module, attach the hooks and build the noise table."""
        if plan.mode is not Mode.EXAMPLE_LOCAL:
            raise ConfigurationError(
                f"privacy mode {plan.mode} does not train privately at a site"
            )
        self._plan, self._source = plan, source
        self._gradients = ClippedGradients(module, loss, plan.clip_norm, engine)
        self._weights = [p for p in module.parameters() if p.requires_grad]
        size = sum(p.numel() for p in self._weights)
        self._grid = Grid.choose(plan.clip_norm, plan.noise_multiplier, size)
        self._noise = DiscreteGaussian(self._grid.sigma)
        self._sgd = torch.optim.SGD(self._weights, learning_rate, momentum)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach the hooks; the module is an ordinary one again."""
        self._gradients.close()

    def train_round(self, inputs: Tensor, targets: Tensor) -> int:
        """Take the plan's steps of one round, a fresh Poisson sample each.

        Parameters
        ----------
        inputs, targets : Tensor
            All training rows of the site, rows first.

        Returns
        -------
        int
            Steps taken: what the event is charged with.
        """
        for _ in range(self._plan.steps_per_round):
            mask = poisson_mask(len(inputs), self._plan.sample_rate, self._source)
            chosen = torch.from_numpy(np.flatnonzero(mask)).to(inputs.device)
            self.step(inputs[chosen], targets[chosen.to(targets.device)])
        return self._plan.steps_per_round

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Take one step on one Poisson sample, which may be empty.

        An empty sample still emits noise: leaving it out would tell that it was empty,
        and steps would go uncounted (PRIVACY.md section 13, row 5).

        Raises
        ------
        ConfigurationError
            If a weight got no gradient of its own for each example, or a buffer
            learned; the module is then not to be used.
        """
        total = self._gradients.sum(inputs, targets)
        noised = noisy_sum(total, self._grid, self._noise, self._source)
        self._apply(noised / self._plan.divisor)

    def _apply(self, gradient: Vector) -> None:
        """Step by one public vector; from here on all is post-processing."""
        start = 0
        for weight in self._weights:
            part = torch.from_numpy(gradient[start : start + weight.numel()])
            weight.grad = part.view_as(weight).to(weight)
            start += weight.numel()
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)
