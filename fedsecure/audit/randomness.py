"""Where the noise came from: told by the generator's type and by the bytes it gave.

Statistics cannot tell a system generator from a good seeded one, or integer noise from
rounded floats of the same width; who holds the seed can (PRIVACY.md section 16).
"""

from fedsecure.audit.finding import Check, judged
from fedsecure.learning.training import SystemRandom
from fedsecure.privacy.mechanism import RandomSource
from fedsecure.update import IntVector

_DRAW_BYTES = 8
"""Bytes the table's sampler takes for a draw, beside a bit for its sign."""


class Meter:
    """Passes bytes on and counts them."""

    def __init__(self, source: RandomSource) -> None:
        self.source = source
        self.given = 0

    @property
    def secure(self) -> bool:
        """Whether the source is the operating system's, and not a kin of it."""
        return type(self.source) is SystemRandom

    def bytes(self, n: int) -> bytes:
        """Return `n` bytes of the source."""
        self.given += n
        return self.source.bytes(n)


class Provenance:
    """What all noise of a tier was made of.

    Attributes
    ----------
    draws : int
        Coordinates that had to carry noise.
    whole : bool
        Whether every contribution was of int64.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._start = meter.given
        self.draws = 0
        self.whole = True

    def saw(self, contribution: IntVector) -> None:
        """Count a contribution's coordinates and note its type."""
        self.draws += len(contribution)
        self.whole &= contribution.dtype.kind == "i"

    def check(self) -> Check:
        """Return whether noise came whole, and from the system's generator alone."""
        taken = self._meter.given - self._start
        enough = taken >= _DRAW_BYTES * self.draws
        words = []
        if not self._meter.secure:
            name = type(self._meter.source).__name__
            words.append(f"the source is {name}: simulation, epsilon void")
        if not self.whole:
            words.append("noise is not of integers")
        if not enough:
            words.append(
                f"{taken:,} bytes for {self.draws:,} draws: noise was made elsewhere"
            )
        said = "; ".join(words) or (
            f"Integers, {taken:,} bytes of the operating system's generator for "
            f"{self.draws:,} draws."
        )
        return Check(
            "generator",
            judged(passed=not words),
            taken / max(self.draws, 1),
            "SystemRandom, int64, at least 8 bytes a draw",
            said,
        )
