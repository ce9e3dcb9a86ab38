"""Statistics of an audit: what so many trials prove about epsilon, at which confidence.

Pure numbers; nothing here knows how the trials were made.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from fedsecure.update import Vector

CONFIDENCE = 0.999
"""At 95% one release in twenty would fail by chance (PRIVACY.md section 16)."""
_MOST_EPSILON = 1000.0
_THRESHOLDS = 1000


def clopper_pearson_upper(hits: Vector, trials: int, confidence: float) -> Vector:
    """Return upper bounds of probabilities; exact (Clopper and Pearson 1934).

    Parameters
    ----------
    hits : Vector
        Whole numbers, or expected ones where a threshold is still being chosen.
    """
    misses = trials - hits
    found = stats.beta.ppf(confidence, hits + 1, np.maximum(misses, 1e-9))
    return np.where(misses > 0, found, 1.0)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return delta of a Gaussian whose sensitivity is mu deviations.

    Balle and Wang 2018 (arXiv 1805.06530), theorem 8.
    """
    far = -epsilon / mu
    first, second = stats.norm.cdf(far + mu / 2), stats.norm.logcdf(far - mu / 2)
    return float(first - math.exp(min(epsilon + float(second), 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return epsilon of a Gaussian whose sensitivity is mu deviations, at `delta`."""
    if mu <= 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    found = optimize.brentq(
        lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, _MOST_EPSILON
    )
    return float(found)


def separation_bound(
    without: Vector, within: Vector, confidence: float = CONFIDENCE
) -> float:
    """Return a lower bound of mu from trials of two worlds.

    The threshold is chosen on one half of the trials, as the one that would prove most
    if both worlds were Gaussians of the mean and deviation seen there: the best on the
    trials themselves is mostly luck. It is judged on the other half. Both error rates
    are bounded from above by Clopper and Pearson; a Gaussian with such errors has at
    least the mu returned (Nasr et al. 2023, arXiv 2302.07956; Dong, Roth, Su 2019).

    Parameters
    ----------
    without, within : Vector
        Independent trials in the world without and with the contribution; the latter
        tends to be larger.
    confidence : float
        That the bound holds; both error rates share what is left.
    """
    each = 1 - (1 - confidence) / 2
    threshold = _threshold(without[::2], within[::2], each)
    judged = without[1::2], within[1::2]
    alarms = np.array([np.count_nonzero(judged[0] > threshold)], np.float64)
    missed = np.array([np.count_nonzero(judged[1] <= threshold)], np.float64)
    sizes = len(judged[0]), len(judged[1])
    return float(_mu(alarms, missed, sizes, each)[0])


def _threshold(without: Vector, within: Vector, confidence: float) -> float:
    sizes = len(without), len(within)
    seen = np.concatenate([without, within])
    tried = np.linspace(seen.min(), seen.max(), _THRESHOLDS)
    alarms = sizes[0] * stats.norm.sf(_deviations(tried, without))
    missed = sizes[1] * stats.norm.cdf(_deviations(tried, within))
    return float(tried[np.argmax(_mu(alarms, missed, sizes, confidence))])


def _deviations(values: Vector, seen: Vector) -> Vector:
    return np.asarray((values - seen.mean()) / max(float(seen.std()), 1e-12))


def _mu(
    alarms: Vector, missed: Vector, sizes: tuple[int, int], confidence: float
) -> Vector:
    """Return what so many false alarms and misses prove."""
    alarm = clopper_pearson_upper(alarms, sizes[0], confidence)
    miss = clopper_pearson_upper(missed, sizes[1], confidence)
    known = (alarm < 1) & (miss < 1)
    found = stats.norm.isf(alarm) + stats.norm.isf(miss)
    return np.where(known, np.maximum(found, 0.0), 0.0)


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float
) -> float:
    """Return a lower bound of epsilon from one run with many canaries.

    Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), theorem 5.2 and appendix D.

    Parameters
    ----------
    canaries : int
        Each was in the run or not by a fair coin of its own.
    guesses, correct : int
        For how many it was guessed, and how many guesses were right.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} correct of {guesses} guesses of {canaries}")

    def doubt(epsilon: float) -> float:
        found = one_run_p_value(canaries, guesses, correct, epsilon, delta)
        return found - (1 - confidence)

    if doubt(0.0) >= 0:
        return 0.0
    high = 1.0
    while doubt(high) < 0:
        high *= 2
    return float(optimize.brentq(doubt, 0.0, high, xtol=1e-6))


def one_run_p_value(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """Return how likely so many right guesses are at most, were epsilon true."""
    right = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(correct - 1, guesses, right))
    if correct == 0 or delta == 0:
        return min(beta, 1.0)
    below = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, right)
    alpha = float(np.max(np.cumsum(below) / np.arange(1, correct + 1)))
    return min(beta + 2 * canaries * delta * alpha, 1.0)


def auc_interval(
    members: Vector, others: Vector, confidence: float
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and an interval (DeLong et al. 1988).

    Parameters
    ----------
    members, others : Vector
        Scores; members tend to score higher.
    """
    above = _placements(members, others)
    below = 1 - _placements(others, members)
    area = float(above.mean())
    spread = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    half = float(stats.norm.isf((1 - confidence) / 2) * math.sqrt(spread))
    return area, max(0.0, area - half), min(1.0, area + half)


def _placements(scores: Vector, against: Vector) -> Vector:
    """Return, for each score, the share of `against` below it, ties counted half."""
    ordered = np.sort(against)
    low: NDArray[np.int64] = np.searchsorted(ordered, scores, side="left")
    high: NDArray[np.int64] = np.searchsorted(ordered, scores, side="right")
    return np.asarray((low + high) / (2 * len(against)), dtype=np.float64)
