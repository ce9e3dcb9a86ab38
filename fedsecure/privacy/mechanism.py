"""Secure randomness turned into a Poisson sample and into Gaussian noise on integers.

Floating-point Gaussians leak through their low bits (Jin et al., arXiv 2112.05307), so
noise is an integer from a discrete Gaussian, by table inversion (PRIVACY.md section
15), on a grid fine enough that rounding costs a few percent of noise at most. The
random source is an argument: the system's generator in a run, vectors in a test.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsecure.errors import ConfigurationError
from fedsecure.update import IntVector, Vector

CLIP_SHRINK = 1 - 2.0**-10
"""Examples are clipped to C times this and charged as C: the rest covers float sums."""
TAIL = 14
"""Standard deviations kept: what lies beyond has probability below 2**-140."""
MAX_SIGMA = 2.0**17
"""Steps of the grid; a table has TAIL times as many rows of 16 bytes."""
SMOOTHING = 2.0
"""Grid steps of deviation that noise of one site has beside z D: what is left is then
a function of a continuous Gaussian of z D, to 1e-33 (docs/adr/0023)."""
_TARGET_INFLATION = 0.02
_EXACT = 2.0**52
_FRACTION_BITS = 224  # thresholds need 128; the recurrences lose below 60
_WORD = 64
_INDEX_BITS = 20

Bits = NDArray[np.uint64]
Mask = NDArray[np.bool_]


class RandomSource(Protocol):
    """Uniform bytes, as from ``os.urandom``."""

    def bytes(self, n: int) -> bytes:
        """Return `n` fresh bytes; the system's generator wherever epsilon counts."""
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """The lattice on which a sum is rounded and noised.

    Attributes
    ----------
    steps : float
        Grid steps s per unit of gradient; a power of two, so that scaling is exact.
    sensitivity : float
        D = s C + sqrt(d), in steps: rounding after the sum moves each coordinate by
        at most one more step between neighbours (PRIVACY.md section 5).
    sigma : float
        Standard deviation of the noise, in steps: z D and `SMOOTHING`, as variances
        add, so that what accountants say of continuous noise of z D holds for it.
    """

    steps: float
    sensitivity: float
    sigma: float

    @classmethod
    def choose(
        cls, clip_norm: float, noise_multiplier: float, parameters: int
    ) -> "Grid":
        """Return the coarsest grid that costs 2% more noise, or the finest allowed.

        Whatever the grid, sigma / D is at least the noise multiplier: a coarse grid
        costs accuracy, never epsilon.

        Parameters
        ----------
        parameters : int
            d, the trainable parameters of the model; at least 1.

        Raises
        ------
        ConfigurationError
            If even one step per rounding error needs noise beyond `MAX_SIGMA`.
        """
        root = math.sqrt(parameters)
        wanted = math.ceil(math.log2(root / (_TARGET_INFLATION * clip_norm)))
        least = math.ceil(math.log2(root / clip_norm))
        for exponent in range(wanted, least - 1, -1):
            steps = 2.0**exponent
            sensitivity = math.nextafter(steps * clip_norm + root, math.inf)
            spread = math.nextafter(noise_multiplier * sensitivity, math.inf)
            sigma = math.nextafter(math.hypot(spread, SMOOTHING), math.inf)
            if sigma <= MAX_SIGMA:
                return cls(steps, sensitivity, sigma)
        raise ConfigurationError(
            f"noise_multiplier={noise_multiplier} on {parameters} parameters needs a "
            f"noise table beyond sigma={MAX_SIGMA:.0f}; train fewer parameters or take "
            "fewer steps, which need less noise"
        )

    def round(self, total: Vector) -> IntVector:
        """Return the sum on the grid; clamped, which contracts, where it cannot fit.

        Deterministic rounding to nearest: it is charged in `sensitivity`.
        """
        scaled = np.clip(np.rint(total * self.steps), -_EXACT, _EXACT)
        return scaled.astype(np.int64)


class DiscreteGaussian:
    """Draws integers with weight exp(-k^2 / 2 sigma^2) (Canonne, Kamath, Steinke 2020).

    The table holds 128-bit thresholds of the magnitude as two words; 64 random bits
    find the row, and only a tie with a threshold's high word asks for the low one. The
    first bits of a word alone find it where no threshold lies between the words that
    start alike; the others are searched for. The distance of a draw is `distance`.

    Parameters
    ----------
    sigma : float
        From 2 to `MAX_SIGMA`. The variance is sigma^2 to all digits in that range.
    """

    def __init__(self, sigma: float) -> None:
        """Build the table, once per plan: about 1.5 seconds at the greatest sigma."""
        if not 2 <= sigma <= MAX_SIGMA:
            raise ConfigurationError(
                f"sigma={sigma} grid steps, must be from 2 to {MAX_SIGMA:.0f}"
            )
        self.sigma = sigma
        self._high, self._low = _thresholds(sigma)
        self._shift, self._first, self._open = _index(sigma)

    @property
    def distance(self) -> float:
        """Return a bound on the statistical distance of one draw; below 2**-64.

        Draws times this are charged to delta (PRIVACY.md section 15). Each threshold
        is cut to 128 bits, which moves at most 2**-128 from one row to the next, and is
        off by what the recurrences lose before, below that again; the tail beyond
        `TAIL` deviations has probability below 2**-140.
        """
        rows = len(self._high)
        return 2 * rows * 2.0**-128 + 2.0**-140

    def draw(self, n: int, source: RandomSource) -> IntVector:
        """Return `n` independent draws, shape (n,), int64."""
        words = _words(n, source)
        bucket = (words >> self._shift).view(np.int64)
        found = self._first.take(bucket)
        hard = np.flatnonzero(self._open.take(bucket))
        found[hard] = self._search(words[hard], source)
        signs = np.frombuffer(source.bytes((n + 7) // 8), np.uint8)
        negative = np.unpackbits(signs, count=n).view(np.bool_)
        return np.negative(found, out=found, where=negative)

    def _search(self, words: Bits, source: RandomSource) -> IntVector:
        """Count the thresholds below each word; a tie is decided by 64 bits more."""
        found = np.searchsorted(self._high, words, side="left")
        edge = np.minimum(found, len(self._high) - 1)
        for i in np.flatnonzero(self._high[edge] == words):
            found[i] = self._untie(int(words[i]), int(found[i]), source)
        return found

    def _untie(self, word: int, first: int, source: RandomSource) -> int:
        """Count the thresholds at or below ``word`` and a fresh low word."""
        low = int.from_bytes(source.bytes(8), "little")
        row = first
        while row < len(self._high) and int(self._high[row]) == word:
            if int(self._low[row]) > low:
                break
            row += 1
        return row


def poisson_mask(rows: int, sample_rate: float, source: RandomSource) -> Mask:
    """Return which of `rows` examples a step takes, each with probability q.

    Shape (rows,). The sample may be empty: the step is taken and charged all the same
    (PRIVACY.md section 13, row 5). The probability is q rounded down to 64 bits.

    Raises
    ------
    ConfigurationError
        If sample_rate is not in (0, 1].
    """
    if not 0 < sample_rate <= 1:
        raise ConfigurationError(f"sample_rate={sample_rate}, must be in (0, 1]")
    threshold = int(Fraction(sample_rate) * 2**_WORD)
    if threshold >= 2**_WORD:
        return np.ones(rows, dtype=np.bool_)
    return _words(rows, source) < np.uint64(threshold)


def clip_factors(norms: Vector, clip_norm: float) -> Vector:
    """Return what each example's gradient is multiplied by, shape of `norms`.

    At most 1, and such that no norm exceeds C (1 - 2^-10). An example whose norm is
    NaN or Inf gets 0: it counts as the zero vector (PRIVACY.md section 5).
    """
    bound = clip_norm * CLIP_SHRINK
    finite = np.isfinite(norms)
    safe = np.where(finite, np.maximum(norms, bound), np.inf)
    return np.where(finite, bound / safe, 0.0)


def noisy_sum(
    total: Vector, grid: Grid, noise: DiscreteGaussian, source: RandomSource
) -> Vector:
    """Return the clipped sum plus Gaussian noise, in units of the gradient.

    Rounded first and noised after; nothing touches it in between (PRIVACY.md 5).

    Raises
    ------
    ConfigurationError
        If the table was built for another sigma than the grid's.
    """
    if noise.sigma != grid.sigma:
        raise ConfigurationError(
            f"noise table is for sigma={noise.sigma}, the grid wants {grid.sigma}"
        )
    noised = grid.round(total) + noise.draw(len(total), source)
    return noised.astype(np.float64) / grid.steps


def _words(n: int, source: RandomSource) -> Bits:
    words = np.frombuffer(source.bytes(8 * n), dtype="<u8")
    return words.astype(np.uint64, copy=False)


@lru_cache(maxsize=2)
def _index(sigma: float) -> tuple[np.uint64, IntVector, Mask]:
    """Return a shift, and for what it leaves of a word: first row, and if more fit.

    Buckets are many enough that few hold a threshold, and few enough for the cache.
    """
    high = _thresholds(sigma)[0]
    bits = min(_INDEX_BITS, len(high).bit_length() + 4)
    shift = np.uint64(_WORD - bits)
    starts = np.arange(2**bits, dtype=np.uint64) << shift
    first = np.append(np.searchsorted(high, starts, side="left"), len(high))
    return shift, first[:-1].astype(np.int64), np.diff(first) > 0


@lru_cache(maxsize=2)  # one plan per run: the next round finds its table ready
def _thresholds(sigma: float) -> tuple[Bits, Bits]:
    """Return high and low words of 2**128 P(|X| <= k), k = 0 up to the tail.

    The last threshold, 2**128, is left out: a draw past all others lands on the tail's
    end, whose row is then one more than the table has.
    """
    cumulative, total = _cumulative(sigma)
    mask, bits = 2**_WORD - 1, 2 * _WORD
    scaled = [(value << bits) // total for value in cumulative[:-1]]
    high = np.array([value >> _WORD for value in scaled], dtype=np.uint64)
    low = np.array([value & mask for value in scaled], dtype=np.uint64)
    return high, low


def _cumulative(sigma: float) -> tuple[list[int], int]:
    """Return running sums of the weights of 0, 1, 2, ... as fixed-point integers.

    w(k+1) = w(k) r(k) with r(k) = exp(-(2k+1) / 2 sigma^2), r(k+1) = r(k) r(0)^2.
    """
    bits = _FRACTION_BITS
    ratio = _exp_negative(1 / (2 * Fraction(sigma) ** 2), bits)
    shrink = (ratio * ratio) >> bits
    weight, running = 1 << bits, 1 << bits
    sums = [running]
    for _ in range(math.ceil(TAIL * sigma)):
        weight = (weight * ratio) >> bits
        ratio = (ratio * shrink) >> bits
        running += 2 * weight
        sums.append(running)
    return sums, running


def _exp_negative(x: Fraction, bits: int) -> int:
    """Return exp(-x) * 2**bits for 0 <= x <= 1/8, by its alternating series."""
    guard = bits + 32
    step = (x.numerator << guard) // x.denominator
    total, term, k = 0, 1 << guard, 0
    while term:
        total += term if k % 2 == 0 else -term
        k += 1
        term = ((term * step) >> guard) // k
    return total >> 32
