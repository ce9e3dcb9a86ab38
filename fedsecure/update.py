"""A model as one vector: which round it belongs to, how it is laid out."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsecure.errors import ConfigurationError, NotFinite

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None
"""A plain JSON value."""
Vector = NDArray[np.float64]
"""Shape (num_parameters,), float64."""
IntVector = NDArray[np.int64]
"""Shape (num_parameters,) or (blocks, slots), int64."""
# A whole vector's truth values would be an eighth of it: 95 MiB at 1e8 parameters.
_CHUNK_VALUES = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class RoundId:
    """One round of one run; `number` counts from 1."""

    run: str
    number: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and shapes of a model's tensors, in the order they are flattened."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def num_parameters(self) -> int:
        """Length of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    def digest(self) -> bytes:
        """Return SHA-256 over the document's canonical JSON (RFC 8785); 32 bytes."""
        text = json.dumps(self.document(), separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).digest()

    def document(self) -> list[JSON]:
        """Return the layout as plain JSON values."""
        pairs = zip(self.names, self.shapes, strict=True)
        return [[name, list(shape)] for name, shape in pairs]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.generic]]) -> "Layout":
        """Return the layout of named arrays, in their order."""
        return cls(tuple(tensors), tuple(t.shape for t in tensors.values()))


@dataclass(frozen=True, slots=True)
class ModelUpdate:
    """What training makes: local minus global.

    Attributes
    ----------
    layout : Layout
    delta : Vector
        Shape (num_parameters,), float64. Finite; checked when made.
    num_examples : int
        Rows trained on; never leaves the site in the clear.
    """

    layout: Layout
    delta: Vector
    num_examples: int

    def __post_init__(self) -> None:
        """Refuse a delta of another length, or with NaN or Inf."""
        expected = (self.layout.num_parameters,)
        if self.delta.shape != expected:
            msg = f"update has shape {self.delta.shape}, the layout wants {expected}"
            raise ConfigurationError(msg)
        bad = self.delta.size - sum(
            int(np.count_nonzero(np.isfinite(self.delta[i : i + _CHUNK_VALUES])))
            for i in range(0, self.delta.size, _CHUNK_VALUES)
        )
        if bad:
            msg = f"update holds {bad} values that are NaN or Inf; nothing was sent"
            raise NotFinite(msg)


def model_digest(model: Vector) -> bytes:
    """Return SHA-256 of a model's little-endian float64 bytes; 32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(model, dtype="<f8").data).digest()


def flatten(tensors: Mapping[str, NDArray[np.generic]]) -> Vector:
    """Return all tensors as one float64 vector, in mapping order."""
    if not tensors:
        return np.zeros(0, dtype=np.float64)
    return np.concatenate(
        [np.asarray(t, dtype=np.float64).ravel() for t in tensors.values()]
    )


def unflatten(vector: Vector, layout: Layout) -> dict[str, Vector]:
    """Return named float64 views of `vector`.

    Raises
    ------
    ConfigurationError
        If the vector's length is not the layout's.
    """
    if vector.shape != (layout.num_parameters,):
        msg = (
            f"vector has shape {vector.shape}, layout wants ({layout.num_parameters},)"
        )
        raise ConfigurationError(msg)
    out, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        size = math.prod(shape)
        out[name] = vector[start : start + size].reshape(shape)
        start += size
    return out


def float_bytes(vector: Vector) -> memoryview:
    """Return a vector's little-endian float64 bytes; a view where they lie that way."""
    return np.ascontiguousarray(vector, dtype="<f8").data.cast("B")
