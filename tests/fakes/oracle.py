"""The clipped sum by torch.func and by a loop: what every gradient engine must give."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedsecure.privacy.mechanism import CLIP_SHRINK
from fedsecure.update import Vector


def each_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return cross-entropies; the mean over whatever the model leaves in between."""
    return nn.functional.cross_entropy(
        outputs.flatten(1), targets % outputs[0].numel(), reduction="none"
    )


def by_vmap(module: nn.Module, inputs: Tensor, targets: Tensor, clip: float) -> Vector:
    """Return the clipped sum, shape (d,), float64."""
    weights = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}

    def one(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return each_loss(functional_call(module, w, (x[None],)), y[None]).sum()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        each = vmap(grad(one), in_dims=(None, 0, 0))(weights, inputs, targets)
    return _clipped(torch.cat([g.flatten(1).double() for g in each.values()], 1), clip)


def by_loop(module: nn.Module, inputs: Tensor, targets: Tensor, clip: float) -> Vector:
    """Return the same by plain autograd, an example at a time."""
    weights = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        found = torch.autograd.grad(
            each_loss(module(x[None]), y[None]).sum(), weights, allow_unused=True
        )
        parts = zip(found, weights, strict=True)
        rows.append(torch.cat([_or_zero(g, w).flatten() for g, w in parts]))
    return _clipped(torch.stack(rows).double(), clip)


def distance(found: Vector, expected: Vector) -> float:
    """Return the relative difference of two vectors."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def rows_of(kinds: Iterable[int], count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return normal inputs (count, *kinds) and targets 0, 1 or 2."""
    draws = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *kinds, generator=draws)
    return inputs, torch.randint(0, 3, (count,), generator=draws)


def _or_zero(gradient: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if gradient is None else gradient


def _clipped(each: Tensor, clip: float) -> Vector:
    bound = clip * CLIP_SHRINK
    factors = (bound / each.norm(dim=1)).clamp(max=1.0)
    total: Vector = (factors @ each).numpy()
    return total
