"""DP-SGD at one site: per-example gradients by Opacus' hooks, clipped, summed, noised.

Opacus gives the gradients and nothing else: its sampler, divisor, generator and
accountant all take something from the data or from memory (PRIVACY.md section 13).
"""

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.mechanism import (
    DiscreteGaussian,
    Grid,
    RandomSource,
    clip_factors,
    noisy_sum,
    poisson_mask,
)
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import Vector

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs and targets of n examples to their n losses; reduction "none"."""

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Embedding,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_CHUNK_FLOATS = 2**25  # per-example gradients held at once; speed and memory only


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
    ) -> None:
        """Check the module, attach the hooks and build the noise table."""
        if plan.mode is not Mode.EXAMPLE_LOCAL:
            raise ConfigurationError(
                f"privacy mode {plan.mode} does not train privately at a site"
            )
        check_module(module)
        self._module, self._plan = module, plan
        self._loss, self._source = loss, source
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self._names, self._weights = zip(*named, strict=True)
        size = sum(p.numel() for p in self._weights)
        self._chunk = max(1, _CHUNK_FLOATS // size)
        self._grid = Grid.choose(plan.clip_norm, plan.noise_multiplier, size)
        self._noise = DiscreteGaussian(self._grid.sigma)
        self._sgd = torch.optim.SGD(self._weights, learning_rate, momentum)
        self._hooked = GradSampleModule(module, loss_reduction="sum", strict=True)

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
        self._hooked.to_standard_module()

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
        before = [b.clone() for b in self._module.buffers()]
        total = self._clipped_sum(inputs, targets)
        self._check_buffers(before)
        noised = noisy_sum(total, self._grid, self._noise, self._source)
        self._apply(noised / self._plan.divisor)

    def _clipped_sum(self, inputs: Tensor, targets: Tensor) -> Vector:
        """Sum the clipped gradients of all examples, in float64; shape (d,)."""
        self._module.train()  # Opacus' hooks look away in evaluation mode
        total = [torch.zeros_like(p, dtype=torch.float64) for p in self._weights]
        for start in range(0, len(inputs), self._chunk):
            part = slice(start, start + self._chunk)
            gradients = self._per_example(inputs[part], targets[part])
            squares = [_squared_norms(g) for g in gradients]
            norms = torch.stack(squares).sum(0).sqrt().cpu().numpy()
            factors = torch.from_numpy(clip_factors(norms, self._plan.clip_norm))
            for i, gradient in enumerate(gradients):
                total[i] += _weighted_sum(factors.to(gradient.device), gradient)
        flat = [t.flatten().cpu().numpy() for t in total]
        return np.concatenate(flat)

    def _per_example(self, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """Return each weight's gradients, shape (n, *weight)."""
        with warnings.catch_warnings():
            # The first layer's input takes no gradient, and torch warns that the hook
            # sees output gradients only: those are what Opacus reads.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses = self._loss(self._hooked(inputs), targets)
            if losses.shape != (len(inputs),):
                raise ConfigurationError(
                    f"loss has shape {tuple(losses.shape)}, must be ({len(inputs)},): "
                    "one loss per example, without reduction"
                )
            losses.sum().backward()  # type: ignore[no-untyped-call]
        found = [getattr(p, "grad_sample", None) for p in self._weights]
        self._hooked.zero_grad(set_to_none=True)
        for name, gradient in zip(self._names, found, strict=True):
            if not isinstance(gradient, Tensor) or len(gradient) != len(inputs):
                raise ConfigurationError(
                    f"weight {name!r} has no gradient for each example: freeze it if "
                    "unused, and keep the examples in the first dimension"
                )
        return [g for g in found if isinstance(g, Tensor)]

    def _check_buffers(self, before: list[Tensor]) -> None:
        """Refuse what leaves the module without having been clipped and noised."""
        pairs = zip(self._module.named_buffers(), before, strict=True)
        for (name, now), old in pairs:
            if not torch.equal(now, old):
                raise ConfigurationError(
                    f"buffer {name!r} changed in a private step: it would carry rows "
                    "past clip and noise; remove it from the model"
                )

    def _apply(self, gradient: Vector) -> None:
        """Step by one public vector; from here on all is post-processing."""
        start = 0
        for weight in self._weights:
            part = torch.from_numpy(gradient[start : start + weight.numel()])
            weight.grad = part.view_as(weight).to(weight)
            start += weight.numel()
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)


def check_module(module: nn.Module) -> None:
    """Refuse a module that DP-SGD cannot step, naming the layer.

    Raises
    ------
    ConfigurationError
        BatchNorm or another layer with running statistics, a trainable layer without a
        known per-example gradient, an embedding that renormalises, or no trainable
        weight at all.
    """
    for name, layer in module.named_modules():
        reason = _objection(layer)
        if reason:
            raise ConfigurationError(
                f"layer {name or 'model'!r} ({type(layer).__name__}) cannot be trained "
                f"privately: {reason}"
            )
    if not any(p.requires_grad for p in module.parameters()):
        raise ConfigurationError("the model has no trainable weight")


def _objection(layer: nn.Module) -> str:
    """Return why a layer is refused, or an empty text."""
    if getattr(layer, "track_running_stats", None) is not None and (
        layer.track_running_stats or "BatchNorm" in type(layer).__name__
    ):
        return "its statistics mix or remember examples; use GroupNorm or LayerNorm"
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    ):
        return "max_norm, scale_grad_by_freq and sparse depend on the whole batch"
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        return "Opacus 1.6 would train the row of padding_idx; leave it out"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return "only zero padding has a per-example gradient"
    trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
    if trainable and type(layer) not in _LAYERS:
        return f"known are {', '.join(kind.__name__ for kind in _LAYERS)}; or freeze it"
    return ""


def _squared_norms(gradients: Tensor) -> Tensor:
    """Return squared L2 norms of (n, *shape), shape (n,), float64."""
    flat = gradients.flatten(start_dim=1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    return norms.square()


def _weighted_sum(factors: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum of factors[i] * gradients[i], float64.

    Rows of factor 0 are left out: zero times NaN would be NaN.
    """
    kept, flat = factors != 0, gradients.flatten(start_dim=1)
    if not bool(kept.all()):
        factors, flat = factors[kept], flat[kept]
    return (factors @ flat.double()).view(gradients.shape[1:])
