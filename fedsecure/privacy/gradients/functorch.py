"""Whole-model per-example gradients by torch.func: the widest engine, and the oracle.

Each example runs through the module alone, as a batch of one under vmap: shared weights
and layers of any kind are right by construction, and examples cannot mix.
"""

from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedsecure.privacy.gradients.examples import Loss, clipped


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

        def one(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            out = functional_call(self._module, values, (x[None],))
            losses: Tensor = self._loss(out, y[None])
            return losses.reshape(())

        each = vmap(grad(one), in_dims=(None, 0, 0), randomness="different")(
            weights, inputs, targets
        )
        total += clipped(list(each.values()), self._clip_norm)
