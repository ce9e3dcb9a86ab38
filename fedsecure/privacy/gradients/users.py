"""The sum over users of their gradients, each clipped: one unit has several rows.

A user's gradient is the sum over its rows, from a backward pass of its own. What one
user adds is therefore a function of its rows alone, clipped in float64: taking all of
them away takes away exactly that vector, of norm C (1 - 2^-10) at most.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError, NotFinite
from fedsecure.privacy.gradients.examples import Loss, check_buffers, check_losses
from fedsecure.privacy.gradients.inspection import Engine, check_module
from fedsecure.privacy.mechanism import clip_factors
from fedsecure.update import Vector

Users = NDArray[np.int64]
"""Number of the person behind each row, shape (n,)."""
_ROWS = 256
"""Rows of one user in one pass; memory only, for passes are added in float64."""


class UserGradients:
    """Clipped sums of one module, a unit being all rows of one user.

    Parameters
    ----------
    module : torch.nn.Module
        Any layers without running statistics: nothing is attached to it.
    loss : Loss
        From outputs and targets of n examples to n losses, which are added.
    clip_norm : float
        C, over all trainable weights.

    Raises
    ------
    ConfigurationError
        BatchNorm or the like, by name, or nothing to train.
    """

    def __init__(self, module: nn.Module, loss: Loss, clip_norm: float) -> None:
        check_module(module, Engine.FUNCTORCH)
        self._module, self._loss, self._clip_norm = module, loss, clip_norm
        self._weights = [p for p in module.parameters() if p.requires_grad]

    def sum(self, inputs: Tensor, targets: Tensor, users: Users) -> Vector:
        """Return the sum of the users' clipped gradients, shape (d,), float64.

        Parameters
        ----------
        inputs, targets : Tensor
            All rows of the users sampled, rows first; of none the sum is zero.
        users : array
            Whose each row is, shape (n,). A user whose gradient is not finite counts
            as the zero vector.

        Raises
        ------
        ConfigurationError
            If users are not one for each row, the loss is not, or a buffer changed;
            the module is then not to be used.
        NotFinite
            If the sum is not finite although every user's share is.
        """
        if users.shape != (len(inputs),):
            raise ConfigurationError(
                f"users have shape {users.shape}, must be ({len(inputs)},): one a row"
            )
        self._module.train()
        before = [b.clone() for b in self._module.buffers()]
        total = np.zeros(sum(p.numel() for p in self._weights))
        for rows in _grouped(users):
            gradient = self._gradient(inputs, targets, rows)
            norm = np.linalg.norm(gradient)
            factor = clip_factors(np.array([norm]), self._clip_norm)[0]
            if factor:  # zero times NaN would be NaN
                total += factor * gradient
        check_buffers(self._module, before)
        if not math.isfinite(float(total.sum())):
            raise NotFinite("the users' clipped sum is not finite; nothing was sent")
        return total

    def _gradient(self, inputs: Tensor, targets: Tensor, rows: Users) -> Vector:
        """Return one user's gradient, added over passes in float64."""
        total: Vector = np.zeros(sum(p.numel() for p in self._weights))
        for start in range(0, len(rows), _ROWS):
            chosen = torch.from_numpy(rows[start : start + _ROWS])
            x = inputs[chosen.to(inputs.device)]
            losses = self._loss(self._module(x), targets[chosen.to(targets.device)])
            check_losses(losses, len(chosen))
            parts = torch.autograd.grad(
                losses.sum(), self._weights, materialize_grads=True
            )
            flat = torch.cat([part.flatten().double() for part in parts])
            total += flat.cpu().numpy()
        return total


def _grouped(users: Users) -> Iterator[Users]:
    """Yield the row numbers of each user, users in the order of their numbers."""
    if len(users):
        order = np.argsort(users, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(users[order])) + 1)
