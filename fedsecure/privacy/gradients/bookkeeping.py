"""Book-keeping: clipped sums for about the price of a plain backward pass.

Forward once, keeping each layer's input; backward once for the gradients at the layers'
outputs, the weights taking none; norms by layer; one weighted product (Bu et al., ICML
2023, arXiv 2210.00038; PRIVACY.md section 12). What is added over examples is added in
float64, so no batch, however large, moves the sum by more than one clipped example.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.examples import Loss, check_losses, weighted_sum
from fedsecure.privacy.gradients.inspection import RULES
from fedsecure.privacy.gradients.layers import Each, Rule
from fedsecure.privacy.mechanism import clip_factors


class CalledTwice(ConfigurationError):
    """A layer ran twice in one pass; its contributions would have to add first."""


@dataclass(slots=True, eq=False)
class _Layer:
    """A layer with trainable weights, and what the pass under way has told of it."""

    name: str
    module: nn.Module
    rule: Rule
    places: dict[str, slice]
    inputs: Tensor | None = None
    version: int = 0
    slopes: Tensor | None = None
    squares: Tensor | None = None
    each: Each = field(default_factory=dict)

    def forget(self) -> None:
        """Free what a pass kept."""
        self.inputs = self.slopes = self.squares = None
        self.each = {}

    def learn(self, slopes: Tensor) -> None:
        """Measure the gradients of the weights from those at the output."""
        if self.inputs is None or _version(self.inputs) != self.version:
            raise ConfigurationError(
                f"layer {self.name!r}: its input was changed in place after its call: "
                "its gradients would be of the wrong one; use x = x + y for x += y"
            )
        wanted, slopes = frozenset(self.places), _wide(slopes)
        self.squares, self.each = self.rule.measure(
            self.module, self.inputs, slopes, wanted
        )
        if wanted <= set(self.each):
            self.inputs = None
        else:
            self.slopes = slopes

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sums of all weights to the flat sum."""
        totals = {
            name: total[place].view(getattr(self.module, name).shape)
            for name, place in self.places.items()
        }
        for name, gradients in self.each.items():
            totals.pop(name).add_(weighted_sum(factors, gradients))
        if totals:
            self._add_products(factors, totals)

    def _add_products(self, factors: Tensor, totals: Mapping[str, Tensor]) -> None:
        """Add the sums of the weights that were too large to make by example."""
        inputs, slopes = self.inputs, self.slopes
        if inputs is None or slopes is None:
            raise _without_gradient(f"{self.name}.{next(iter(totals))}")
        kept = factors != 0
        if not bool(kept.all()):  # zero times NaN would be NaN
            inputs, slopes, factors = inputs[kept], slopes[kept], factors[kept]
        scale = factors.view(-1, *[1] * (slopes.dim() - 1))
        self.rule.add(self.module, inputs, slopes * scale, totals)


class BookKeeping:
    """Clipped sums of a module all of whose trainable layers have a rule.

    Parameters
    ----------
    module : torch.nn.Module
        Passed by `check_module` for book-keeping. Hooks are attached until `close`;
        outside `add` they do nothing.
    loss : Loss
    clip_norm : float
        C; examples are clipped to C (1 - 2^-10).
    """

    def __init__(self, module: nn.Module, loss: Loss, clip_norm: float) -> None:
        """Find the layers, their places in the flat sum, and attach the hooks."""
        self._module, self._loss, self._clip_norm = module, loss, clip_norm
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self._weights = dict(named)
        self._places: dict[int, slice] = {}
        self._size = 0
        for _, weight in named:
            self._places[id(weight)] = slice(self._size, self._size + weight.numel())
            self._size += weight.numel()
        self._layers = [
            _Layer(n, m, RULES[type(m)], places)
            for n, m in module.named_modules()
            if (places := self._own(m))
        ]
        self._examples: int | None = None
        self._handles: list[Any] = []
        for layer in self._layers:
            # First before, last after: what other hooks do to the output comes after.
            self._handles += [
                layer.module.register_forward_pre_hook(
                    partial(self._before, layer), with_kwargs=True
                ),
                layer.module.register_forward_hook(
                    partial(self._after, layer), prepend=True
                ),
            ]

    def close(self) -> None:
        """Detach the hooks."""
        for handle in self._handles:
            handle.remove()

    def add(self, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
        """Add the sum of clipped gradients to `total`, (d,) float64, in weight order.

        Raises
        ------
        CalledTwice
            If a layer ran twice.
        ConfigurationError
            If a weight got no gradient, or one past its layer; by name.
        """
        try:
            with self._recording(len(inputs)):
                losses = self._loss(self._module(inputs), targets)
                check_losses(losses, len(inputs))
                losses.sum().backward()  # type: ignore[no-untyped-call]
            self._check_weights()
            squares = [_measured(layer) for layer in self._layers]
            norms = torch.stack(squares).sum(0).sqrt().cpu().numpy()
            factors = torch.from_numpy(clip_factors(norms, self._clip_norm))
            factors = factors.to(squares[0].device)
            for layer in self._layers:
                layer.add_to(total, factors)
                layer.forget()
        finally:
            for layer in self._layers:
                layer.forget()

    def _own(self, module: nn.Module) -> dict[str, slice]:
        """Return the places of a module's own trainable weights."""
        weights = module.named_parameters(recurse=False)
        return {n: self._places[id(p)] for n, p in weights if p.requires_grad}

    @contextmanager
    def _recording(self, examples: int) -> Iterator[None]:
        """Have the hooks listen; give every weight its `requires_grad` back."""
        for weight in self._weights.values():
            weight.grad = None
        self._examples = examples
        try:
            yield
        finally:
            self._examples = None
            for weight in self._weights.values():
                weight.requires_grad_(True)

    def _before(
        self,
        layer: _Layer,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Keep the input; the weights take no gradient inside their layer."""
        if self._examples is None:
            return
        if layer.inputs is not None or layer.squares is not None:
            raise CalledTwice(
                f"layer {layer.name!r} runs twice in one pass: engine=bookkeeping "
                "takes each layer once; use engine=hooks, or two layers"
            )
        given: Tensor = args[0] if args else kwargs["input"]
        if given.dim() < 1 or len(given) != self._examples:
            raise ConfigurationError(
                f"layer {layer.name!r} gets an input of shape {tuple(given.shape)}: "
                "weights have no gradient for each example unless all "
                f"{self._examples} examples are in the first dimension"
            )
        layer.inputs = _wide(given.detach())
        layer.version = _version(layer.inputs)
        for name in layer.places:
            getattr(module, name).requires_grad_(False)

    def _after(
        self, layer: _Layer, module: nn.Module, _: Any, output: Tensor
    ) -> Tensor | None:
        """Listen at the output; the first layer's takes no gradient by itself."""
        if self._examples is None:
            return None
        for name in layer.places:
            getattr(module, name).requires_grad_(True)
        if not torch.is_grad_enabled():
            return None
        if not output.requires_grad:
            output = _started(output)
        output.register_hook(layer.learn)  # type: ignore[no-untyped-call]
        return output

    def _check_weights(self) -> None:
        """Refuse a gradient that did not come through its layer."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                weight.grad = None
                raise ConfigurationError(
                    f"weight {name!r} is used outside its layer's own call, where no "
                    "example's share is seen; call the layer, or use engine=functorch"
                )


_ONE = torch.zeros((), requires_grad=True)


class _Start(torch.autograd.Function):
    """Makes a tensor the start of a graph, in place, so that it may be changed later.

    A leaf that requires grad may not meet ``ReLU(inplace=True)``.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, _: Tensor) -> Tensor:
        """Return the same tensor, now with a history."""
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, None]:
        """Nobody before this one wants a gradient."""
        del ctx, slopes
        return None, None


def _started(output: Tensor) -> Tensor:
    if output._is_view():  # noqa: SLF001 - a view may not change in place in a Function
        output = output.clone()
    started: Tensor = _Start.apply(output, _ONE)  # type: ignore[no-untyped-call]
    return started


def _version(values: Tensor) -> int:
    return values._version  # noqa: SLF001 - torch's own count of changes in place


def _wide(values: Tensor) -> Tensor:
    """Return halves as float32: their squares would overflow."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _measured(layer: _Layer) -> Tensor:
    if layer.squares is None:
        raise _without_gradient(f"{layer.name}.{next(iter(layer.places))}")
    return layer.squares


def _without_gradient(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"weight {name!r} has no gradient for each example: freeze it if unused, and "
        "keep the examples in the first dimension"
    )
