"""Floats as bounded integers and back (ENCRYPTION.md section 6).

Both directions work on slices: `start` says where a chunk begins in the whole vector,
so a loop over chunks makes the integers that one call over everything makes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fedsecure.errors import ConfigurationError, NotFinite, OverflowRisk
from fedsecure.ranges import Ranges
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
    ranges : Ranges or None
        The round's ranges by tensor; None: `clip` for everything.
    """

    clip: float
    bits: int
    max_contributors: int
    ranges: Ranges | None = None

    def __post_init__(self) -> None:
        """Refuse a range that is not positive and finite, or is above `clip`."""
        Ranges.uniform(self.clip)
        if self.ranges is None:
            return
        if self.ranges.rest != self.clip or max(self.ranges.bounds, default=0.0) > (
            self.clip
        ):
            raise ConfigurationError(
                f"ranges of a round end with {self.ranges.rest} and reach "
                f"{max(self.ranges.bounds, default=0.0)}; the plan's value_range is "
                f"{self.clip}"
            )

    @property
    def steps(self) -> int:
        """Largest integer of one site: steps from zero to the range."""
        return (1 << (self.bits - 1)) - 1

    @property
    def scale(self) -> float:
        """Steps a unit, where the range is `clip`."""
        return self.scale_of(self.clip)

    def scale_of(self, bound: float) -> float:
        """Return steps a unit for a range."""
        return self.steps / bound

    def within(self, ranges: Ranges) -> "FixedPoint":
        """Return the same with a round's ranges.

        Raises
        ------
        ConfigurationError
            One of them is above `clip`, or the weight's is not `clip`.
        """
        return replace(self, ranges=ranges)

    def check(self, field_bits: int) -> None:
        """Return only if the full sum fits its field; arithmetic, not measurement.

        Raises
        ------
        OverflowRisk
            It would not.
        """
        largest = self.max_contributors * self.steps
        bound = 2 ** (field_bits - 1) - 1
        if largest > bound:
            raise OverflowRisk(
                f"{self.max_contributors} sites of {self.bits} bits sum to {largest}, "
                f"a field of {field_bits} bits holds {bound}"
            )

    def quantize(
        self, values: Vector, start: int = 0, rng: np.random.Generator | None = None
    ) -> Quantized:
        """Round to a step; values beyond the range are cut and counted.

        Parameters
        ----------
        values : Vector
            The whole vector, or a slice of it.
        start : int
            Where the slice begins in the whole.
        rng : Generator or None
            None: to the nearest step, ties to even, the same integers every time.
            Otherwise up or down by chance so that the expected value is the value
            (unbiased). No claim of privacy rests on this chance: it is used with
            privacy off only, what it hides is below one step, and a site that drew it
            badly would lose accuracy and reveal nothing that the sum does not.

        Raises
        ------
        NotFinite
            NaN or Inf among them.
        """
        out = np.empty(len(values), dtype=np.int64)
        saturated = 0
        for low, high, bound in self._pieces(start, len(values)):
            part = values[low:high]
            if not np.isfinite(part).all():
                raise NotFinite("an update with NaN or Inf is not encoded")
            cut = np.clip(part, -bound, bound)
            saturated += int(np.count_nonzero(cut != part))
            cut *= self.scale_of(bound)
            if rng is None:
                out[low:high] = np.rint(cut, out=cut)
            else:
                out[low:high] = _by_chance(cut, rng, self.steps)
        return Quantized(out, saturated)

    def dequantize(self, total: IntVector, start: int = 0) -> Vector:
        """Return the sum that integers stand for, float64."""
        out = np.empty(len(total), dtype=np.float64)
        for low, high, bound in self._pieces(start, len(total)):
            np.divide(total[low:high], self.scale_of(bound), out=out[low:high])
        return out

    def residual(self, values: Vector, sent: IntVector, start: int = 0) -> Vector:
        """Return what `sent` does not say of `values`, at most one range each way.

        What was cut by saturation is in it too, and is bounded: a value that lies
        beyond its range in every round would otherwise pile up without end, and be
        paid out long after the model has moved on (as an integrator winds up).
        """
        left = np.empty(len(values), dtype=np.float64)
        for low, high, bound in self._pieces(start, len(left)):
            part = left[low:high]
            np.divide(sent[low:high], self.scale_of(bound), out=part)
            np.subtract(values[low:high], part, out=part)
            np.clip(part, -bound, bound, out=part)
        return left

    def share(self, weight: float) -> float:
        """Return a weight in (0, 1] as a whole number of steps, at least one.

        A site multiplies by this value and sends it too, so the division by the summed
        weights is exact: rounding the weight after the product would scale the mean.
        """
        return max(1, round(weight * self.steps)) / self.steps

    def _pieces(self, start: int, count: int) -> Iterator[tuple[int, int, float]]:
        """Yield (low, high, range) within a slice, in chunks; both from its start."""
        ranges = self.ranges or Ranges.uniform(self.clip)
        for first, stop, bound in ranges.pieces(start, start + count):
            for low in range(first - start, stop - start, _CHUNK_VALUES):
                yield low, min(low + _CHUNK_VALUES, stop - start), bound


def _by_chance(scaled: Vector, rng: np.random.Generator, steps: int) -> Vector:
    """Return each value rounded up with the probability of its fraction.

    Compared, not added: a whole number plus a chance below 1 can round up to the next
    one in floating point. For the same reason a value at its range can lie a hair above
    the last step here, and is cut again, or it would leave its field.
    """
    np.clip(scaled, -steps, steps, out=scaled)
    down = np.floor(scaled)
    down += rng.random(len(scaled)) < scaled - down
    return down
