"""Whole-model per-example gradients by torch.func: the widest engine, and the oracle.

Each example runs through the module alone, as a batch of one under vmap: shared weights
and layers of any kind are right by construction, and examples cannot mix.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.examples import Loss, clipped

Weights = dict[str, Tensor]
"""Tensors by the name of their weight."""


class Functorch:
    """Clipped sums by ``vmap(grad)``; d floats of memory for each example of a chunk.

    Parameters
    ----------
    module : torch.nn.Module
        Must run under vmap: no `.item()`, no change of buffers.
    loss : Loss
    clip_norm : float
        C; examples are clipped to C (1 - 2^-10).
    """

    def __init__(self, module: nn.Module, loss: Loss, clip_norm: float) -> None:
        self._module, self._loss, self._clip_norm = module, loss, clip_norm

    def close(self) -> None:
        """Nothing was attached."""

    def add(self, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
        """Add the clipped sum to `total`, (d,) float64, in weight order."""
        weights = {
            n: p.detach() for n, p in self._module.named_parameters() if p.requires_grad
        }

        def one(values: Weights, x: Tensor, y: Tensor) -> Tensor:
            out = functional_call(self._module, values, (x[None],))
            losses: Tensor = self._loss(out, y[None])
            return losses.reshape(())

        each = self._each(one, weights, inputs, targets)
        total += clipped(list(each.values()), self._clip_norm)

    def _each(
        self,
        one: Callable[[Weights, Tensor, Tensor], Tensor],
        weights: Weights,
        inputs: Tensor,
        targets: Tensor,
    ) -> Weights:
        """Return the gradients of all examples, shapes (n, *weight)."""
        mapped = vmap(grad(one), in_dims=(None, 0, 0), randomness="different")
        try:
            with warnings.catch_warnings():
                # Of an operation that vmap runs an example at a time; that is right.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                each: Weights = mapped(weights, inputs, targets)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as bad:
            raise ConfigurationError(
                f"engine=functorch cannot run this model under torch.func.vmap: {bad}; "
                "use engine=auto"
            ) from bad
        return each
