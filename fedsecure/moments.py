"""Renyi divergences of integer noise that several sites add up; numbers only.

The discrete path of PRIVACY.md section 6. Why each bound holds is written out in
docs/adr/0005; tests/unit/test_moments.py compares them with sums over the lattice.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
"""Where the discrete path is valued: whole numbers, as the expansion asks for."""

Values = NDArray[np.float64]


def lattice_gap(shares: int, sigma: float) -> float:
    """Return how far a sum of discrete Gaussians is from being one itself.

    Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), Prop. 14: the constant tau, per
    coordinate.

    Parameters
    ----------
    shares : int
        How many independent shares n are counted, at least 1.
    sigma : float
        Parameter of each share, in grid steps; at least 1/2.

    Returns
    -------
    float
        10 sum_{k<n} exp(-2 pi^2 sigma^2 k/(k+1)); 0 for one share.
    """
    return 10.0 * math.fsum(
        math.exp(-2 * (math.pi * sigma) ** 2 * k / (k + 1)) for k in range(1, shares)
    )


def summed_rdp(
    orders: Values, noise_multiplier: float, gap: float, dimension: int
) -> Values:
    """Return the Renyi divergence bound of a sum that carries all counted shares.

    The smaller of the two bounds of arXiv 2102.06387, Prop. 14, with z for S/D:
    a/(2 z^2) + tau d, and a/2 (1/z + tau sqrt(d))^2.

    Parameters
    ----------
    orders : array of shape (m,)
        Orders a, at least 1.
    noise_multiplier : float
        z: sqrt(shares) sigma over the integer L2 sensitivity D.
    gap : float
        tau of `lattice_gap`.
    dimension : int
        Number of coordinates d.

    Returns
    -------
    array of shape (m,)
    """
    apart = orders / (2 * noise_multiplier**2) + gap * dimension
    joint = orders / 2 * (1 / noise_multiplier + gap * math.sqrt(dimension)) ** 2
    return np.minimum(apart, joint)


def sampled_rdp(moments: Values, sample_rate: float, orders: tuple[int, ...]) -> Values:
    """Return the bound after Poisson sampling, from the bounds without it.

    E_Q[((1-q) + q P/Q)^a] at whole orders is a sum with positive coefficients of the
    moments E_Q[(P/Q)^k], so a bound on each moment bounds the sum; the lattice's
    reflection covers the other direction (docs/adr/0005).

    Parameters
    ----------
    moments : array of shape (max(orders) - 1,)
        Bounds on the Renyi divergence at orders 2, 3, ..., max(orders).
    sample_rate : float
        q, in (0, 1).
    orders : tuple of int
        Where the answer is wanted, each at least 2.

    Returns
    -------
    array of shape (len(orders),)
    """
    ks = np.arange(2, max(orders) + 1, dtype=np.float64)
    log_moment = (ks - 1) * moments
    # The coefficients sum to 1, so what stands above 1 is summed, not 1 itself: no
    # digits are lost where q is tiny. log(exp(x) - 1), for any x > 0:
    log_excess = log_moment + np.log(-np.expm1(-log_moment))
    rows = [_log_above_one(order, sample_rate, ks, log_excess) for order in orders]
    return np.array(rows) / (np.array(orders) - 1.0)


@lru_cache(maxsize=256)
def discrete_rdp(
    noise_multiplier: float,
    sample_rate: float,
    shares: int,
    sigma: float,
    dimension: int,
) -> Values:
    """Return the bound of one step of the discrete path, at `ORDERS`.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the counted shares over the integer sensitivity.
    sample_rate : float
        Poisson probability q, in (0, 1].
    shares, sigma, dimension
        As for `lattice_gap` and `summed_rdp`.

    Returns
    -------
    array of shape (len(ORDERS),)
        Read-only: it is kept for the next call.
    """
    gap = lattice_gap(shares, sigma)
    if sample_rate == 1:
        orders = np.array(ORDERS, dtype=np.float64)
        values = summed_rdp(orders, noise_multiplier, gap, dimension)
    else:
        every = np.arange(2, max(ORDERS) + 1, dtype=np.float64)
        moments = summed_rdp(every, noise_multiplier, gap, dimension)
        values = sampled_rdp(moments, sample_rate, ORDERS)
    values.setflags(write=False)
    return values


def _log_above_one(order: int, q: float, ks: Values, log_excess: Values) -> float:
    """Return log(1 + sum_k C(order, k) q^k (1-q)^(order-k) excess_k)."""
    k = ks[: order - 1]
    log_choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    log_weight = log_choose + k * math.log(q) + (order - k) * math.log1p(-q)
    return float(np.logaddexp(0.0, logsumexp(log_weight + log_excess[: order - 1])))
