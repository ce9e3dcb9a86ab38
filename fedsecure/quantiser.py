"""Floats as bounded integers and back (ENCRYPTION.md section 6)."""

import math
from dataclasses import dataclass

import numpy as np

from fedsecure.errors import ConfigurationError, NotFinite, OverflowRisk
from fedsecure.update import IntVector, Vector

# Work in chunks keeps temporaries small, and in the processor's cache.
_CHUNK_VALUES = 1 << 16


@dataclass(frozen=True, slots=True)
class Quantized:
    """Integers, and how many values lay outside the range and were cut to it."""

    values: IntVector
    saturated: int


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Float to bounded integer and back.

    Attributes
    ----------
    clip : float
        Largest absolute value; agreed before the round, never a site's own maximum.
    bits : int
        Of one integer, sign included.
    max_contributors : int
        Summands the field must hold.
    """

    clip: float
    bits: int
    max_contributors: int

    def __post_init__(self) -> None:
        """Refuse a range that is not positive and finite."""
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ConfigurationError(
                f"encryption.value_range={self.clip}, must be positive and finite"
            )

    @property
    def scale(self) -> float:
        """Steps a unit."""
        return ((1 << (self.bits - 1)) - 1) / self.clip

    def check(self, field_bits: int) -> None:
        """Return only if the full sum fits its field; arithmetic, not measurement.

        Raises
        ------
        OverflowRisk
            It would not.
        """
        largest = self.max_contributors * ((1 << (self.bits - 1)) - 1)
        bound = 2 ** (field_bits - 1) - 1
        if largest > bound:
            raise OverflowRisk(
                f"{self.max_contributors} sites of {self.bits} bits sum to {largest}, "
                f"a field of {field_bits} bits holds {bound}"
            )

    def quantize(self, values: Vector) -> Quantized:
        """Round to the nearest step; values beyond the range are cut and counted.

        Raises
        ------
        NotFinite
            NaN or Inf among them.
        """
        out = np.empty(len(values), dtype=np.int64)
        saturated = 0
        for start in range(0, len(values), _CHUNK_VALUES):
            part = values[start : start + _CHUNK_VALUES]
            if not np.isfinite(part).all():
                raise NotFinite("an update with NaN or Inf is not encoded")
            cut = np.clip(part, -self.clip, self.clip)
            saturated += int(np.count_nonzero(cut != part))
            cut *= self.scale
            out[start : start + _CHUNK_VALUES] = np.rint(cut, out=cut)
        return Quantized(out, saturated)

    def dequantize(self, total: IntVector) -> Vector:
        """Return the sum that integers stand for, float64."""
        return total / self.scale
