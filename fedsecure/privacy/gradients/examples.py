"""Gradients held one by one: their norms and their weighted sum, both in float64."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.mechanism import clip_factors

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs and targets of n examples to their n losses; reduction "none"."""


_BLOCK_FLOATS = 2**17
"""Widened to float64 at once: a MiB stays near the processor, and in malloc's heap."""
_SHORT = 2**12
"""Numbers of a vector whose squares may be added in float32."""
_LEAST, _MOST = 1e-24, 1e30
"""Between these no square of float32 that matters was lost or overflowed."""


def squared_norms(gradients: Tensor) -> Tensor:
    """Return squared L2 norms of (n, *shape), shape (n,), float64.

    Float32 squares would lose gradients below 1e-19, which large inputs make up for.
    """
    flat = gradients.flatten(start_dim=1)
    norms = [
        torch.linalg.vector_norm(flat[rows], dim=1, dtype=torch.float64)
        for rows in _blocks(flat)
    ]
    return torch.cat(norms).square()


def quick_squared_norms(rows: Sequence[Tensor]) -> list[Tensor]:
    """Return squared L2 norms of the rows of matrices (n, width), float64 each.

    Of short rows the squares are added in float32, whose rounding, at most 2^-12 of the
    sum in any order, is within the 2^-10 that clipping leaves. Where some square may
    have been lost, or is not finite, all are added in float64.
    """
    if any(r.shape[1] > _SHORT or r.dtype != torch.float32 for r in rows):
        return [squared_norms(r) for r in rows]
    found = torch.stack([torch.linalg.vector_norm(r, dim=1) for r in rows]).double()
    squares = found.square()
    least, most = torch.aminmax(squares)
    if float(least) > _LEAST and float(most) < _MOST:  # NaN is neither
        return list(squares)
    return [squared_norms(r) for r in rows]


def weighted_sum(factors: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of factors[i] * gradients[i], float64, shape of one gradient.

    Rows of factor 0 are left out: zero times NaN would be NaN.
    """
    kept, flat = factors != 0, gradients.flatten(start_dim=1)
    if not bool(kept.all()):
        factors, flat = factors[kept], flat[kept]
    total = flat.new_zeros(flat.shape[1], dtype=torch.float64)
    for rows in _blocks(flat):
        total.addmv_(flat[rows].double().T, factors[rows])
    return total.view(gradients.shape[1:])


def _blocks(flat: Tensor) -> Iterator[slice]:
    """Yield slices of rows (n, width), at least one, that are widened together."""
    count, width = flat.shape
    size = max(1, count)
    if flat.device.type == "cpu":
        size = max(1, _BLOCK_FLOATS // max(1, width))
    for start in range(0, max(1, count), size):
        yield slice(start, start + size)


def clipped(gradients: Sequence[Tensor], clip_norm: float) -> Tensor:
    """Return the sum of clipped gradients, shape (d,), float64.

    Parameters
    ----------
    gradients : sequence of Tensor
        One tensor (n, *weight) for each weight.
    clip_norm : float
        C; norms are over all weights, and clipped to C (1 - 2^-10).
    """
    norms = torch.stack([squared_norms(g) for g in gradients]).sum(0).sqrt()
    found = clip_factors(norms.cpu().numpy(), clip_norm)
    factors = torch.from_numpy(found).to(norms.device)
    return torch.cat([weighted_sum(factors, g).flatten() for g in gradients])


def check_losses(losses: Tensor, examples: int) -> None:
    """Refuse a loss that is not one number for each example.

    Raises
    ------
    ConfigurationError
        With both shapes.
    """
    if losses.shape != (examples,):
        raise ConfigurationError(
            f"loss has shape {tuple(losses.shape)}, must be ({examples},): one loss "
            "per example, without reduction"
        )
    if not losses.requires_grad:
        raise ConfigurationError(
            "the loss does not depend on any trainable weight: train some, and do not "
            "detach the outputs"
        )


def check_buffers(module: nn.Module, before: Sequence[Tensor]) -> None:
    """Refuse what leaves a module without having been clipped and noised.

    Parameters
    ----------
    before : sequence of Tensor
        Copies of the module's buffers from before the private step.

    Raises
    ------
    ConfigurationError
        If a buffer changed; by name.
    """
    for (name, now), old in zip(module.named_buffers(), before, strict=True):
        if not torch.equal(now, old):
            raise ConfigurationError(
                f"buffer {name!r} changed in a private step: it would carry rows "
                "past clip and noise; remove it from the model"
            )
