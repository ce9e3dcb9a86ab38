"""The largest absolute value by tensor, agreed before the round.

Never a site's own maximum: that would tell what the site holds, and sites with
different scales could not be summed (ENCRYPTION.md section 6).
"""

import json
import math
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from fedsecure.errors import ConfigurationError, NotFinite, VerificationError
from fedsecure.update import JSON, Layout, Vector

FLOOR = 2.0**-20
"""Smallest range of a tensor, as a share of the configured one."""
# Work in chunks keeps temporaries small, and in the processor's cache.
_CHUNK_VALUES = 1 << 16


@dataclass(frozen=True, slots=True)
class Ranges:
    """A range of each tensor, and one of what lies behind them.

    Attributes
    ----------
    rest : float
        Range of what lies behind the last tensor named here: of the weight element,
        and of everything where one range serves all.
    ends : tuple of int
        Where each tensor ends in the flat vector, exclusive; rising.
    bounds : tuple of float
        Each tensor's range; positive and finite.
    """

    rest: float
    ends: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a range that is not positive and finite, and ends that do not rise."""
        for bound in (self.rest, *self.bounds):
            if not (math.isfinite(bound) and bound > 0):
                raise ConfigurationError(
                    f"encryption.value_range={bound}, must be positive and finite"
                )
        rising = all(a < b for a, b in zip((0, *self.ends), self.ends, strict=False))
        if len(self.ends) != len(self.bounds) or not rising:
            raise ConfigurationError(
                f"{len(self.bounds)} ranges for {len(self.ends)} tensors, must be one "
                "each, for tensors that hold a value"
            )

    @classmethod
    def uniform(cls, value_range: float) -> "Ranges":
        """Return one range for everything."""
        return cls(value_range)

    @classmethod
    def from_aggregate(
        cls,
        layout: Layout,
        before: Vector,
        after: Vector,
        multiple: float,
        floor: float,
        cap: float,
    ) -> "Ranges":
        """Return ranges from what all sites know: the last opened sum.

        A tensor's range is `multiple` times the largest absolute value of its last
        step, rounded up to a power of two, at least `floor`, at most `cap`; `cap` where
        that step was zero. All sites get the same bits: their models are equal to the
        bit, a subtraction and a product are rounded the same everywhere (IEEE 754), and
        a maximum takes no sum, whose order differs between processors; a 2-norm would.
        The power of two is that of the exponent, so it is exact, and a range stays the
        same from round to round until a step has doubled or halved.

        Parameters
        ----------
        before, after : Vector
            The models before and after the last release; shape
            (layout.num_parameters,).
        multiple : float
            At least 1: with less, a sum at the range would narrow the next range.
        floor, cap : float
            Smallest and largest range of a tensor.

        Raises
        ------
        NotFinite
            The step holds NaN or Inf.
        ConfigurationError
            A model has another length, or multiple, floor and cap are out of order.
        """
        if not before.shape == after.shape == (layout.num_parameters,):
            raise ConfigurationError(
                f"models have shapes {before.shape} and {after.shape}, the layout "
                f"wants ({layout.num_parameters},)"
            )
        if not (1 <= multiple < math.inf and 0 < floor <= cap < math.inf):
            raise ConfigurationError(
                f"encryption.range_multiple={multiple}, must be at least 1; floor "
                f"{floor} must be positive and at most value_range={cap}"
            )
        ends = tuple(accumulate(math.prod(shape) for shape in layout.shapes))
        steps = (
            _largest_step(before[start:end], after[start:end])
            for start, end in pairwise((0, *ends))
        )
        return cls(cap, ends, tuple(_stepped(multiple * s, floor, cap) for s in steps))

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield (start, stop, range) of the stretches of one range within a slice."""
        index = bisect_right(self.ends, start)
        while start < stop:
            last = index >= len(self.ends)
            end = stop if last else min(stop, self.ends[index])
            yield start, end, self.rest if last else self.bounds[index]
            start, index = end, index + 1

    def document(self) -> dict[str, JSON]:
        """Return the ranges as plain JSON values."""
        return {
            "rest": self.rest,
            "ends": list(self.ends),
            "bounds": list(self.bounds),
        }


def read_ranges(data: bytes) -> Ranges:
    """Return the ranges that JSON bytes describe.

    Raises
    ------
    VerificationError
        Not what `Ranges.document` writes.
    """
    try:
        row = json.loads(data)
        ends = tuple(int(end) for end in row["ends"])
        bounds = tuple(float(bound) for bound in row["bounds"])
        return Ranges(float(row["rest"]), ends, bounds)
    except (
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        RecursionError,
        ConfigurationError,
    ) as bad:
        raise VerificationError("ranges are not {rest, ends, bounds}") from bad


def _largest_step(before: Vector, after: Vector) -> float:
    largest = 0.0
    for start in range(0, len(after), _CHUNK_VALUES):
        chunk = slice(start, start + _CHUNK_VALUES)
        here = float(np.abs(after[chunk] - before[chunk]).max())
        if not math.isfinite(here):
            raise NotFinite("the last step holds NaN or Inf: no range follows from it")
        largest = max(largest, here)
    return largest


def _stepped(wanted: float, floor: float, cap: float) -> float:
    """Return the power of two at or above `wanted`, within floor and cap."""
    if wanted == 0 or wanted >= cap:
        return cap
    fraction, exponent = math.frexp(wanted)
    exponent -= fraction == 0.5  # a power of two itself; frexp and ldexp are exact
    if exponent >= sys.float_info.max_exp:
        return cap
    return min(cap, max(floor, math.ldexp(1.0, exponent)))
