"""Opacus' two ways to per-example gradients, its hooks and its ghost clipping.

Opacus gives gradients and norms and nothing else: its sampler, divisor, generator and
accountant all take something from the data or from memory (PRIVACY.md section 13).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.examples import Loss, check_losses, clipped
from fedsecure.privacy.mechanism import clip_factors


class Hooks:
    """Clipped sums from all per-example gradients; d floats of memory an example.

    Right for shared weights and for layers called twice, which add up in Opacus.

    Parameters
    ----------
    module : torch.nn.Module
        Passed by `check_module` for hooks, which stay attached until `close`.
    loss : Loss
    clip_norm : float
        C; examples are clipped to C (1 - 2^-10).
    """

    def __init__(self, module: nn.Module, loss: Loss, clip_norm: float) -> None:
        self._loss, self._clip_norm = loss, clip_norm
        self._weights = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._hooked = GradSampleModule(module, loss_reduction="sum", strict=True)

    def close(self) -> None:
        """Detach the hooks; the module is an ordinary one again."""
        self._hooked.to_standard_module()

    def add(self, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
        """Add the clipped sum to `total`, (d,) float64, in weight order."""
        total += clipped(self._per_example(inputs, targets), self._clip_norm)

    def _per_example(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """Return each weight's gradients, shape (n, *weight)."""
        with _quiet():
            losses = self._loss(self._hooked(inputs), targets)
            check_losses(losses, len(inputs))
            losses.sum().backward()  # type: ignore[no-untyped-call]
        found = [getattr(p, "grad_sample", None) for p in self._weights.values()]
        self._hooked.zero_grad(set_to_none=True)
        for name, gradient in zip(self._weights, found, strict=True):
            if not isinstance(gradient, Tensor) or len(gradient) != len(inputs):
                raise _without_gradient(name)
        return [g for g in found if isinstance(g, Tensor)]


class Ghost:
    """Clipped sums from norms alone: a second backward pass of a weighted loss.

    Parameters
    ----------
    module : torch.nn.Module
        Passed by `check_module` for ghost clipping; hooks are attached until `close`.
    loss : Loss
    clip_norm : float
        C; examples are clipped to C (1 - 2^-10).
    """

    def __init__(self, module: nn.Module, loss: Loss, clip_norm: float) -> None:
        self._loss, self._clip_norm = loss, clip_norm
        self._weights = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._hooked = GradSampleModuleFastGradientClipping(
            module, loss_reduction="sum", strict=True, use_ghost_clipping=True
        )

    def close(self) -> None:
        """Detach the hooks; the module is an ordinary one again."""
        self._hooked.to_standard_module()

    def add(self, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
        """Add the clipped sum to `total`, (d,) float64, in weight order."""
        kept = self._backward(inputs, targets)
        if not bool(kept.all()):
            # Zero times NaN would be NaN in all weights: go without them, from the
            # beginning, as dropout would change the norms of the others.
            self._hooked.zero_grad(set_to_none=True)
            if bool(kept.any()):
                self.add(inputs[kept], targets[kept], total)
            return
        total += torch.cat([_gradient(n, p) for n, p in self._weights.items()])
        self._hooked.zero_grad(set_to_none=True)

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Leave the clipped sum in the weights; return which examples are finite."""
        with _quiet():
            losses = self._loss(self._hooked(inputs), targets)
            check_losses(losses, len(inputs))
            losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            factors = self._factors(len(inputs)).to(losses)
            self._hooked.zero_grad(set_to_none=True)
            kept = factors != 0
            if bool(kept.all()):
                self._hooked.disable_hooks()
                try:
                    (losses * factors).sum().backward()  # type: ignore[no-untyped-call]
                finally:
                    self._hooked.enable_hooks()
        return kept

    def _factors(self, examples: int) -> Tensor:
        norms = []
        for name, weight in self._weights.items():
            norm = getattr(weight, "_norm_sample", None)
            if not isinstance(norm, Tensor) or norm.shape != (examples,):
                raise _without_gradient(name)
            norms.append(norm.double())
            weight._norm_sample = None  # type: ignore[attr-defined]  # noqa: SLF001 - where Opacus leaves it
        total = torch.stack(norms).square().sum(0).sqrt().cpu().numpy()
        return torch.from_numpy(clip_factors(total, self._clip_norm))


def _gradient(name: str, weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise _without_gradient(name)
    return weight.grad.flatten()


def _without_gradient(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"weight {name!r} has no gradient for each example: freeze it if unused, and "
        "keep the examples in the first dimension"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch about hooks of a first layer, whose input takes no gradient.

    They see output gradients only: those are what Opacus reads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
