"""Models: logistic regression, a multilayer perceptron, a small CNN, or the user's own.

None has running statistics: they would leave a site without having been clipped.
"""

import math
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError, FedsecureError, PolicyRefused
from fedsecure.learning.objects import importable
from fedsecure.trainer import JSON

NAMES = ("logistic", "mlp", "cnn", "object")
_MAX_WIDTH = 65_536


def build(
    settings: Mapping[str, JSON],
    input_shape: tuple[int, ...],
    outputs: int,
    seed: int,
    objects: Collection[str] = (),
) -> nn.Module:
    """Return a model on the CPU whose weights depend on the arguments only.

    Parameters
    ----------
    settings : mapping
        The `model` section: `name`, `hidden` (widths of an mlp), `object`.
    input_shape : tuple of int
        Of one row.
    outputs : int
    objects : collection of str
        Functions this site allows a plan to name.

    Raises
    ------
    ConfigurationError
        Unknown model or option, or a model that does not fit the rows.
    PolicyRefused
        The plan names a function that is not in `objects`.
    """
    name, hidden, function = _read(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "object":
            model = _own(function, input_shape, outputs, objects)
        elif name == "cnn":
            model = _cnn(input_shape, outputs)
        else:
            widths = hidden if name == "mlp" else ()
            model = _dense((math.prod(input_shape), *widths, outputs))
    _check(model)
    return model


def _read(settings: Mapping[str, JSON]) -> tuple[str, tuple[int, ...], str]:
    unknown = sorted(set(settings) - {"name", "hidden", "object"})
    if unknown:
        raise ConfigurationError(f"model: unknown options {unknown}")
    name = settings.get("name")
    if name not in NAMES:
        raise ConfigurationError(
            f"model.name={name!r}, choose one of: {', '.join(NAMES)}"
        )
    hidden = settings.get("hidden")
    widths = [64] if hidden is None else hidden
    if not isinstance(widths, list):
        raise ConfigurationError(f"model.hidden={hidden!r}, must be a list of widths")
    return str(name), tuple(map(_width, widths)), str(settings.get("object") or "")


def _width(value: JSON) -> int:
    # Canonical JSON writes 64.0 as 64, but a plan read elsewhere may hold a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"model.hidden holds {value!r}, must be whole numbers")
    if value != int(value) or not 1 <= value <= _MAX_WIDTH:
        raise ConfigurationError(
            f"model.hidden holds {value}, must be whole and from 1 to {_MAX_WIDTH}"
        )
    return int(value)


def _dense(widths: tuple[int, ...]) -> nn.Module:
    """Return linear layers with ReLU between; one layer is logistic regression."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (size, following) in enumerate(pairwise(widths)):
        if i:
            layers.append(nn.ReLU())
        layers.append(nn.Linear(size, following))
    return nn.Sequential(*layers)


class Image(nn.Module):
    """Give flat or channel-less square pictures the shape a convolution wants.

    Parameters
    ----------
    shape : tuple of int
        Channels, height, width.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows as (n, channels, height, width)."""
        return rows.reshape(len(rows), *self._shape)


def _cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Return two convolutions, each halving the picture, and a linear layer."""
    channels, height, width = shape = _picture(input_shape)
    return nn.Sequential(
        Image(shape),
        nn.Conv2d(channels, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), outputs),
    )


def _picture(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width) of rows that are pictures of at least 4 x 4."""
    found = shape
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        found = (1, side, side)
    elif len(shape) == 2:
        found = (1, *shape)
    fits = len(found) == 3 and math.prod(found) == math.prod(shape)
    if not fits or min(found[1:]) < 4:
        raise ConfigurationError(
            "model.name=cnn wants pictures of at least 4 x 4, rows have shape "
            f"{shape}: use mlp or logistic"
        )
    return found[0], found[1], found[2]


def _own(
    name: str, input_shape: tuple[int, ...], outputs: int, objects: Collection[str]
) -> nn.Module:
    """Call the user's function; the edge to code that may raise anything.

    A plan comes over a wire, so it can only choose among names this site has listed.
    """
    if name not in objects:
        raise PolicyRefused(
            f"model.object={name!r} is not among the functions this site allows "
            f"({', '.join(sorted(objects)) or 'none'})"
        )
    make: Callable[..., Any] = importable(name, "model.object")
    try:
        model = make(input_shape, outputs)
    except FedsecureError:
        raise
    except Exception as bad:
        raise ConfigurationError(
            f"model.object={name} raised {type(bad).__name__}: {bad}"
        ) from bad
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"model.object={name} returned {type(model).__name__}, must return a "
            "torch.nn.Module"
        )
    return model.to("cpu")


def _check(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if getattr(layer, "track_running_stats", False):
            raise ConfigurationError(
                f"layer {name or 'model'!r} ({type(layer).__name__}) keeps running "
                "statistics of the rows; use GroupNorm or LayerNorm"
            )
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigurationError("the model has no trainable weight")
