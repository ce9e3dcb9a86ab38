"""What book-keeping knows of each layer: example norms, and the clipped sum.

A rule sees a layer's input and the gradient at its output, nothing else. Where making
each example's gradient is cheap it is made once, for the norm and for the sum; where
not, the norm comes from Gram matrices and the sum from one product (Goodfellow 2015,
arXiv 1510.01799; Bu et al., ICML 2023, arXiv 2210.00038).
"""

# ruff: noqa: ARG002 - rules have one signature, whatever their layer needs of it

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsecure.privacy.gradients.examples import quick_squared_norms, squared_norms
from fedsecure.privacy.gradients.gram import gram_norms, prefers_gram

Each = dict[str, Tensor]
"""Gradients by weight name, one for each example, shape (n, *weight)."""


class Rule(Protocol):
    """How one kind of layer gets its weights' gradients.

    `inputs` are (n, ...) and `slopes` are the gradients at the output, (n, ...).
    """

    def measure(
        self, layer: Any, inputs: Tensor, slopes: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor, Each]:
        """Return squared norms over all `wanted` weights, (n,) float64, and gradients.

        A weight missing from the gradients was too large to make for each example.
        """
        ...

    def add(
        self, layer: Any, inputs: Tensor, slopes: Tensor, totals: Mapping[str, Tensor]
    ) -> None:
        """Add the gradients, summed over the batch, of the weights `totals` names.

        They are those that `measure` did not make. `slopes` are scaled, and they and
        the totals, of the weights' shapes, are float64.
        """
        ...


class LinearRule:
    """`nn.Linear` on vectors (n, p) or on sequences (n, ..., p)."""

    def measure(
        self, layer: nn.Linear, inputs: Tensor, slopes: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor, Each]:
        """On vectors |a|^2 |g|^2; on sequences by the cheaper way."""
        a, g = _rows(inputs), _rows(slopes)
        positions, into, out = a.shape[1], a.shape[2], g.shape[2]
        if positions == 1:
            return _squares_of_vectors(a[:, 0], g[:, 0], wanted), {}
        found: Each = {"bias": g.sum(1)} if "bias" in wanted else {}
        squares = _sum_of_squares(found, g)
        if "weight" not in wanted:
            return squares, found
        if prefers_gram(positions, into, out):
            norms = gram_norms(a, g)
            if norms is not None:
                return squares + norms, found
        found["weight"] = g.transpose(1, 2) @ a
        return squares + squared_norms(found["weight"]), found

    def add(
        self,
        layer: nn.Linear,
        inputs: Tensor,
        slopes: Tensor,
        totals: Mapping[str, Tensor],
    ) -> None:
        """Add one product over all examples and positions; shape (out, in)."""
        g = slopes.reshape(-1, layer.out_features)
        if "weight" in totals:
            rows = inputs.reshape(-1, layer.in_features).double()
            totals["weight"].addmm_(g.T, rows)
        if "bias" in totals:
            totals["bias"].add_(g.sum(0))


class EmbeddingRule:
    """`nn.Embedding`: slopes of equal indices of one example add before the norm."""

    def measure(
        self,
        layer: nn.Embedding,
        inputs: Tensor,
        slopes: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor, Each]:
        """Sum by (example, index) pair: index equality, without P^2 comparisons."""
        count = len(inputs)
        tokens = inputs.reshape(count, -1)
        kept = _not_padding(layer, tokens)
        g = slopes.reshape(*tokens.shape, -1).double() * kept[..., None]
        offsets = torch.arange(count, device=tokens.device)[:, None]
        pairs = (offsets * layer.num_embeddings + tokens).flatten()
        found, place = torch.unique(pairs, return_inverse=True)
        sums = g.new_zeros(len(found), g.shape[-1]).index_add_(
            0, place, g.flatten(0, 1)
        )
        owner = torch.div(found, layer.num_embeddings, rounding_mode="floor")
        squares = g.new_zeros(count).index_add_(0, owner, sums.square().sum(1))
        return squares, {}

    def add(
        self,
        layer: nn.Embedding,
        inputs: Tensor,
        slopes: Tensor,
        totals: Mapping[str, Tensor],
    ) -> None:
        """Add every slope to its index's row; shape (indices, width)."""
        tokens = inputs.flatten()
        kept = _not_padding(layer, tokens)[:, None]  # perhaps of no example at all
        g = slopes.reshape(-1, layer.embedding_dim) * kept
        totals["weight"].index_add_(0, tokens, g)


class NormRule:
    """LayerNorm, RMSNorm, GroupNorm, InstanceNorm: weights times a normalised input.

    All normalise within one example, so what is per example is small: it is made.
    """

    def measure(
        self, layer: nn.Module, inputs: Tensor, slopes: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor, Each]:
        """Make each example's gradients of both weights."""
        found: Each = {}
        if "weight" in wanted:
            found["weight"] = _to_weight(layer, slopes * _normalised(layer, inputs))
        if "bias" in wanted:
            found["bias"] = _to_weight(layer, slopes)
        return _sum_of_squares(found, slopes), found

    def add(
        self,
        layer: nn.Module,
        inputs: Tensor,
        slopes: Tensor,
        totals: Mapping[str, Tensor],
    ) -> None:
        """Add nothing: `measure` makes every weight."""


def _squares_of_vectors(a: Tensor, g: Tensor, wanted: frozenset[str]) -> Tensor:
    """Return |g|^2 for the bias and |a|^2 |g|^2 for the weight, those wanted."""
    if "weight" not in wanted:
        return squared_norms(g)
    times, slopes = quick_squared_norms([a, g])
    return slopes * (times + 1 if "bias" in wanted else times)


def _rows(values: Tensor) -> Tensor:
    """Return (n, positions, width) of (n, ..., width)."""
    return values.reshape(len(values), -1, values.shape[-1])


def _sum_of_squares(found: Mapping[str, Tensor], like: Tensor) -> Tensor:
    squares = like.new_zeros(len(like), dtype=torch.float64)
    for gradient in found.values():
        squares = squares + squared_norms(gradient)
    return squares


def _not_padding(layer: nn.Embedding, tokens: Tensor) -> Tensor:
    if layer.padding_idx is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return tokens != layer.padding_idx


def _normalised(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the input as the layer's weight meets it."""
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.RMSNorm):
        shape = list(layer.normalized_shape)
        return functional.rms_norm(inputs, shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(inputs, layer.num_groups, eps=layer.eps)
    eps = getattr(layer, "eps", 1e-5)
    return functional.instance_norm(inputs, eps=float(eps))


def _to_weight(layer: nn.Module, products: Tensor) -> Tensor:
    """Sum (n, ...) over the positions that share a weight: (n, *weight)."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        shape = tuple(layer.normalized_shape)
        return products.reshape(len(products), -1, *shape).sum(1)
    return products.flatten(start_dim=2).sum(2) if products.dim() > 2 else products
