"""Two rows through a module, before any step: examples are apart, and so large.

A privacy engine must trust that the first dimension is the examples' and that no
example sees another. Both can be tried, once, for the price of two rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError

_CLOSE = 1e-3
"""Rounding differs by a row's place in a batch; mixing shows far above this."""


def probe(module: nn.Module, inputs: Tensor) -> int:
    """Return the floats that go in and out of trainable layers for one example.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : Tensor
        At least one row; the first and the last are used.

    Raises
    ------
    ConfigurationError
        If a trainable layer's first dimension does not follow the number of examples,
        or an example's output depends on another example.
    """
    alone, together = inputs[[0, 0]], inputs[[0, -1]]
    with torch.no_grad():
        with _measured(module) as sizes:
            first = _same_draws(module, alone)
        second = _same_draws(module, together)
    _check_apart(first, second)
    return max(1, sum(sizes) // 2)


def _check_apart(first: Any, second: Any) -> None:
    """Compare the first example's output beside itself and beside another."""
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return
    a, b = first[0].double(), second[0].double()
    finite = bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())
    if finite and float((a - b).norm()) > _CLOSE * float(a.norm() + b.norm()):
        raise ConfigurationError(
            "an example's output changes with the other examples of its batch: then no "
            "gradient belongs to one example and epsilon is void; normalise within an "
            "example (LayerNorm, GroupNorm), and draw at random by torch only"
        )


def _same_draws(module: nn.Module, inputs: Tensor) -> Any:
    """Run with the same dropout each time; torch's seeds are given back."""
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        return module(inputs)


@contextmanager
def _measured(module: nn.Module) -> Iterator[list[int]]:
    """Collect sizes of what passes trainable layers, and refuse a strange shape."""
    sizes: list[int] = []
    handles = []
    for name, layer in module.named_modules():
        if any(p.requires_grad for p in layer.parameters(recurse=False)):
            note = _Note(name, sizes)
            handles.append(layer.register_forward_hook(note, with_kwargs=True))
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


class _Note:
    """A forward hook that notes sizes and checks the first dimension."""

    def __init__(self, name: str, sizes: list[int]) -> None:
        self._name, self._sizes = name, sizes

    def __call__(
        self,
        layer: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> None:
        seen = [v for v in (*args, *kwargs.values(), output) if isinstance(v, Tensor)]
        for value in seen:
            if value.dim() < 1 or len(value) != 2:
                raise ConfigurationError(
                    f"layer {self._name!r} ({type(layer).__name__}) meets a tensor of "
                    f"shape {tuple(value.shape)} in a batch of 2: weights have no "
                    "gradient for each example unless all layers keep the examples in "
                    "the first dimension; expand what is shared, as positions are, to "
                    "every example"
                )
            self._sizes.append(value.numel())
