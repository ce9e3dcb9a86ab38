"""DP-SGD at one site: Poisson sample, clipped sum, noise, and a step of plain SGD.

In mode `user_distributed` users are sampled, with all of their rows, and clipped.

Where the sum comes from is `gradients`; sample and noise are `mechanism`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.clipped import ClippedGradients
from fedsecure.privacy.gradients.examples import Loss
from fedsecure.privacy.gradients.inspection import Engine, check_module
from fedsecure.privacy.gradients.users import UserGradients, Users
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import (
    DiscreteGaussian,
    Grid,
    RandomSource,
    noisy_sum,
    poisson_mask,
)
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import IntVector, Vector

__all__ = ["Engine", "Loss", "PrivateEngine", "check_module"]


class PrivateEngine:
    """Steps a module by the plan; the module's trainable weights are all it changes.

    The module must treat the examples of a batch, its first dimension, apart from each
    other, or epsilon is void. BatchNorm and the like are refused; mixing by hand is
    refused where two rows, tried before the first step, show it.

    Parameters
    ----------
    module : torch.nn.Module
        On CPU or CUDA. Hooks are attached until `close`.
    plan : PrivacyPlan
        Mode `example_local`, `example_distributed` or `user_distributed`: clip, noise,
        sampling and divisor are taken from it.
    loss : Loss
    source : RandomSource
        The system's generator; with any other epsilon is void.
    learning_rate, momentum : float
        Of plain SGD: what follows the noise is post-processing.
    engine : Engine or str
        How clipped sums of examples are made; no part of the privacy event. Users'
        sums have one way, a backward pass each.

    Raises
    ------
    ConfigurationError
        Another mode, an engine asked for where users are summed, or a layer whose
        per-example gradient is not known.
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
        if plan.mode in {Mode.NONE, Mode.SILO}:
            raise ConfigurationError(
                f"privacy mode {plan.mode} does not train privately at a site"
            )
        self._plan, self._source = plan, source
        self._users: UserGradients | None = None
        if plan.mode is Mode.USER_DISTRIBUTED:
            _check_engine(engine)
            self._users = UserGradients(module, loss, plan.clip_norm)
        else:
            self._gradients = ClippedGradients(module, loss, plan.clip_norm, engine)
        self._weights = [p for p in module.parameters() if p.requires_grad]
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
        if self._users is None:
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
            self.step(*self._sample(inputs, targets))
        return self._plan.steps_per_round

    def contribute(
        self,
        inputs: Tensor,
        targets: Tensor,
        lattice: Lattice,
        users: Users | None = None,
    ) -> tuple[IntVector, int]:
        """Return this site's part of one shared step: clipped sum and share of noise.

        Parameters
        ----------
        inputs, targets : Tensor
            All training rows of the site, rows first.
        lattice : Lattice
            The run's grid.
        users : array, optional
            Whose each row is, shape (n,), numbered from 0; in `user_distributed` only.

        Returns
        -------
        IntVector, int
            See `Lattice.contribute`; the module is as it was.

        Raises
        ------
        ConfigurationError
            The unit is the user and the rows do not tell users apart.
        """
        with _whole_products():
            if self._users is None:
                total = self._gradients.sum(*self._sample(inputs, targets))
            else:
                total = self._users.sum(*self._sample_users(inputs, targets, users))
        return lattice.contribute(total, self._source)

    def _sample_users(
        self, inputs: Tensor, targets: Tensor, users: Users | None
    ) -> tuple[Tensor, Tensor, Users]:
        """Return all rows of a fresh Poisson sample of users, which may be empty."""
        if users is None:
            raise ConfigurationError(
                "privacy mode user_distributed needs to know whose each row is: set "
                "data.user_column"
            )
        count = int(users.max()) + 1
        mask = poisson_mask(count, self._plan.sample_rate, self._source)
        rows = np.flatnonzero(mask[users])
        chosen = torch.from_numpy(rows).to(inputs.device)
        return inputs[chosen], targets[chosen.to(targets.device)], users[rows]

    def _sample(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return a fresh Poisson sample, which may be empty."""
        mask = poisson_mask(len(inputs), self._plan.sample_rate, self._source)
        chosen = torch.from_numpy(np.flatnonzero(mask)).to(inputs.device)
        return inputs[chosen], targets[chosen.to(targets.device)]

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
        with _whole_products():
            total = self._gradients.sum(inputs, targets)
        grid, noise = self._local_noise
        noised = noisy_sum(total, grid, noise, self._source)
        self._apply(noised / self._plan.divisor)

    @cached_property
    def _local_noise(self) -> tuple[Grid, DiscreteGaussian]:
        """A site's own grid and its table, which takes a second to build."""
        size = sum(p.numel() for p in self._weights)
        plan = self._plan
        grid = Grid.choose(plan.clip_norm, plan.noise_multiplier, size)
        return grid, DiscreteGaussian(grid.sigma)

    def _apply(self, gradient: Vector) -> None:
        """Step by one public vector; from here on all is post-processing."""
        start = 0
        for weight in self._weights:
            part = torch.from_numpy(gradient[start : start + weight.numel()])
            weight.grad = part.view_as(weight).to(weight)
            start += weight.numel()
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)


@contextmanager
def _whole_products() -> Iterator[None]:
    """Keep CUDA from rounding float32 factors to ten bits, which torch does by default.

    The margin of the clip is 2^-10 of C: last bits of 2^-11, which may follow who else
    is in the batch, would be as large (docs/adr/0023).
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def _check_engine(engine: Engine | str) -> None:
    if engine != Engine.AUTO:
        raise ConfigurationError(
            f"engine={engine} does nothing in privacy mode user_distributed: a user's "
            "gradient is one backward pass; leave it at auto"
        )
