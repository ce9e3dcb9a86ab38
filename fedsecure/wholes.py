"""Integers that are summed as they are: noise is in them, so nothing may touch them."""

from dataclasses import dataclass

import numpy as np

from fedsecure.errors import NotFinite
from fedsecure.quantiser import FixedPoint, Quantized
from fedsecure.update import IntVector, Vector

_LARGEST = 2.0**47


@dataclass(frozen=True, slots=True)
class Wholes(FixedPoint):
    """A quantiser that neither rounds nor cuts (PRIVACY.md section 5).

    Attributes
    ----------
    unit : float
        What one grid step of the sum changes a parameter by.
    """

    unit: float = 1.0

    def quantize(
        self, values: Vector, start: int = 0, rng: np.random.Generator | None = None
    ) -> Quantized:
        """Return the values as integers.

        Raises
        ------
        NotFinite
            One is not whole, or beyond a coefficient: it did not come from the grid,
            so its noise is not the noise that was paid for.
        """
        _ = start, rng
        whole = np.rint(values)
        if not np.array_equal(whole, values) or np.abs(whole).max(initial=0) > _LARGEST:
            raise NotFinite(
                "an update for shared noise is not on the integer grid: nothing was "
                "sent; a ClientApp of one's own cannot train in this privacy mode"
            )
        return Quantized(whole.astype(np.int64), 0)

    def dequantize(self, total: IntVector, start: int = 0) -> Vector:
        """Return what the sum changes the parameters by, float64."""
        _ = start
        return np.multiply(total, self.unit, dtype=np.float64)
