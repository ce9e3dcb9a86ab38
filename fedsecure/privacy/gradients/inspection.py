"""Which engine can step a module, and why another cannot: by layer, before any row."""

from collections.abc import Iterator
from enum import StrEnum

from opacus.layers import DPGRU, DPLSTM, DPRNN
from opacus.layers.dp_rnn import RNNLinear
from torch import nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.convolution import ConvolutionRule
from fedsecure.privacy.gradients.layers import (
    EmbeddingRule,
    LinearRule,
    NormRule,
    Rule,
)


class Engine(StrEnum):
    """How clipped sums are made; all give the same sum."""

    AUTO = "auto"
    BOOKKEEPING = "bookkeeping"
    GHOST = "ghost"
    HOOKS = "hooks"
    FUNCTORCH = "functorch"


_CONVOLUTION, _NORM = ConvolutionRule(), NormRule()
RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: LinearRule(),
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.Conv3d: _CONVOLUTION,
    nn.Embedding: EmbeddingRule(),
    nn.LayerNorm: _NORM,
    nn.GroupNorm: _NORM,
    nn.RMSNorm: _NORM,
    nn.InstanceNorm1d: _NORM,
    nn.InstanceNorm2d: _NORM,
    nn.InstanceNorm3d: _NORM,
}
"""The layers of book-keeping. Subclasses may compute anything: the type is compared."""

_CONTAINERS = (DPRNN, DPLSTM, DPGRU)
_RECURRENT = (RNNLinear, *_CONTAINERS)
_KNOWN = ", ".join(kind.__name__ for kind in RULES)
_ADVICE = {
    nn.MultiheadAttention: (
        "it keeps three projections in one weight; use nn.Linear for query, key, value "
        "and output around torch.nn.functional.scaled_dot_product_attention"
    ),
    nn.LSTM: "use opacus.layers.DPLSTM",
    nn.GRU: "use opacus.layers.DPGRU",
    nn.RNN: "use opacus.layers.DPRNN",
    nn.EmbeddingBag: "use nn.Embedding and a mean over positions",
}


def check_module(module: nn.Module, engine: Engine = Engine.AUTO) -> Engine:
    """Return the engine that steps a module: the one asked for, or the first that can.

    Parameters
    ----------
    engine : Engine
        `auto` tries book-keeping, Opacus ghost, Opacus hooks.

    Raises
    ------
    ConfigurationError
        BatchNorm or another layer with running statistics, a trainable layer without a
        known per-example gradient, an embedding that renormalises, or no trainable
        weight at all; the layer is named, with what to use instead.
    """
    if not any(p.requires_grad for p in module.parameters()):
        raise ConfigurationError("the model has no trainable weight")
    tried = [engine]
    if engine is Engine.AUTO:
        tried = [Engine.BOOKKEEPING, Engine.GHOST, Engine.HOOKS]
    reasons = [next(objections(module, one), "") for one in tried]
    for one, reason in zip(tried, reasons, strict=True):
        if not reason:
            return one
    raise ConfigurationError(reasons[0])


def objections(module: nn.Module, engine: Engine) -> Iterator[str]:
    """Yield a sentence for each layer that `engine` cannot step."""
    for name, layer in module.named_modules():
        reason = _statistics(layer) or _embedding(layer)
        if not reason and engine is not Engine.FUNCTORCH:
            reason = _kind(layer, engine)
        if reason:
            yield (
                f"layer {name or 'model'!r} ({type(layer).__name__}) cannot be trained "
                f"privately: {reason}"
            )
    if engine in (Engine.BOOKKEEPING, Engine.GHOST):
        yield from _shared(module, engine)


def _statistics(layer: nn.Module) -> str:
    if getattr(layer, "track_running_stats", None) is not None and (
        layer.track_running_stats or "BatchNorm" in type(layer).__name__
    ):
        return "its statistics mix or remember examples; use GroupNorm or LayerNorm"
    return ""


def _embedding(layer: nn.Module) -> str:
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    ):
        return "max_norm, scale_grad_by_freq and sparse depend on the whole batch"
    return ""


def _kind(layer: nn.Module, engine: Engine) -> str:
    """Return why a layer's own trainable weights are strangers, or an empty text."""
    own = {n for n, p in layer.named_parameters(recurse=False) if p.requires_grad}
    if not own:
        return ""
    opacus = engine in (Engine.GHOST, Engine.HOOKS)
    known = type(layer) in RULES or (opacus and type(layer) in _RECURRENT)
    if not known:
        advice = next((a for k, a in _ADVICE.items() if isinstance(layer, k)), "")
        return advice or (
            f"known are {_KNOWN}; use those, freeze it, or try engine=functorch"
        )
    if type(layer) in _CONTAINERS:
        return ""
    if own - {"weight", "bias"} or "forward" in vars(layer):
        return (
            f"its weights {sorted(own)} or its forward are not the layer's own; use it "
            "without parametrisation, or try engine=functorch"
        )
    return _opacus(layer) if opacus else ""


def _opacus(layer: nn.Module) -> str:
    """Return what Opacus 1.6 does wrong with a layer it takes, or an empty text."""
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        return "Opacus 1.6 would train the row of padding_idx; use engine=bookkeeping"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return "only zero padding is right in Opacus; use engine=bookkeeping"
    return ""


def _held(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield each layer's own weights, those twice that two layers hold."""
    for name, layer in module.named_modules():
        if not isinstance(layer, _CONTAINERS):  # they show their parts' weights again
            yield from layer.named_parameters(name, recurse=False)


def _shared(module: nn.Module, engine: Engine) -> Iterator[str]:
    """Yield each weight that two layers hold: its contributions add before the norm."""
    names: dict[int, str] = {}
    for name, weight in _held(module):
        first = names.setdefault(id(weight), name)
        if first != name and weight.requires_grad:
            yield (
                f"weights {first!r} and {name!r} are one: engine={engine} takes each "
                "weight once; use engine=hooks, or two weights"
            )
