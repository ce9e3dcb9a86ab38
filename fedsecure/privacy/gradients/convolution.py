"""Book-keeping for convolutions of one to three dimensions, any stride or groups."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedsecure.privacy.gradients.examples import squared_norms
from fedsecure.privacy.gradients.gram import gram_norms, prefers_gram
from fedsecure.privacy.gradients.layers import Each

_BLOCK_FLOATS = 2**18
"""Patches unfolded at once: a MiB stays in the processor's cache and malloc's heap."""


class ConvolutionRule:
    """`nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d`: a linear layer on patches of the input."""

    def measure(
        self, layer: Any, inputs: Tensor, slopes: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor, Each]:
        """Make each example's gradient, or take norms from Gram matrices of patches."""
        found: Each = {}
        squares = slopes.new_zeros(len(slopes), dtype=torch.float64)
        if "bias" in wanted:
            found["bias"] = slopes.flatten(start_dim=2).sum(2)
            squares = squares + squared_norms(found["bias"])
        if "weight" not in wanted:
            return squares, found
        norms = _norms_by_gram(layer, inputs, slopes)
        if norms is None:
            found["weight"] = _products(layer, inputs, slopes)
            norms = squared_norms(found["weight"])
        return squares + norms, found

    def add(
        self, layer: Any, inputs: Tensor, slopes: Tensor, totals: Mapping[str, Tensor]
    ) -> None:
        """Add the weight's gradient by torch's own backward pass, in float64."""
        padded = _padded(layer, inputs).double()
        count = len(layer.kernel_size)
        totals["weight"].add_(
            torch.ops.aten.convolution_backward(
                slopes,
                padded,
                layer.weight.detach().double(),
                None,
                list(layer.stride),
                [0] * count,
                list(layer.dilation),
                False,
                [0] * count,
                layer.groups,
                [False, True, False],
            )[1]
        )


def _norms_by_gram(layer: Any, inputs: Tensor, slopes: Tensor) -> Tensor | None:
    """Return the weight's squared norms, or None if the product is the better way."""
    positions = prod(slopes.shape[2:])
    out, groups = layer.out_channels // layer.groups, layer.groups
    into = layer.in_channels // groups * prod(layer.kernel_size)
    if not prefers_gram(positions, into, out):
        return None
    norms = []
    for part in _blocks(len(inputs), layer.in_channels, layer.kernel_size, positions):
        a = _patches(layer, inputs[part]).flatten(0, 1).transpose(1, 2)
        g = slopes[part].reshape(len(a), out, positions).transpose(1, 2)
        found = gram_norms(a, g)
        if found is None:
            return None
        norms.append(found.view(-1, groups).sum(1))
    return torch.cat(norms)


def _products(layer: Any, inputs: Tensor, slopes: Tensor) -> Tensor:
    """Return each example's gradient of the weight, shape (n, *weight)."""
    positions = prod(slopes.shape[2:])
    groups = layer.groups
    found = slopes.new_empty(
        len(slopes), groups, layer.out_channels // groups, layer.weight[0].numel()
    )
    for part in _blocks(len(inputs), layer.in_channels, layer.kernel_size, positions):
        patches = _patches(layer, inputs[part])
        g = slopes[part].reshape(*patches.shape[:2], -1, positions)
        torch.matmul(g, patches.transpose(2, 3), out=found[part])
    return found.view(-1, *layer.weight.shape)


def _blocks(
    examples: int, channels: int, kernel: tuple[int, ...], positions: int
) -> list[slice]:
    """Return slices of the batch whose patches fit the block."""
    each = channels * prod(kernel) * positions
    size = max(1, _BLOCK_FLOATS // max(1, each))
    return [slice(i, i + size) for i in range(0, examples, size)]


def _padded(layer: Any, inputs: Tensor) -> Tensor:
    """Return the input with the borders that the layer's forward pass gives it."""
    around: list[int] = layer._reversed_padding_repeated_twice  # noqa: SLF001 - the one place where torch keeps "same" in numbers
    if not any(around):
        return inputs
    mode = layer.padding_mode
    return functional.pad(inputs, around, "constant" if mode == "zeros" else mode)


def _patches(layer: Any, inputs: Tensor) -> Tensor:
    """Return what each output position sees: (n, groups, into, positions).

    A strided view of the padded input, copied once.
    """
    padded = _padded(layer, inputs)
    count, channels, *size = padded.shape
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    steps = padded.stride()
    places = [
        (whole - d * (k - 1) - 1) // s + 1
        for whole, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    within = [step * d for step, d in zip(steps[2:], dilation, strict=True)]
    between = [step * s for step, s in zip(steps[2:], stride, strict=True)]
    view = padded.as_strided(
        (count, channels, *kernel, *places), (*steps[:2], *within, *between)
    )
    return view.reshape(count, layer.groups, -1, prod(places))
