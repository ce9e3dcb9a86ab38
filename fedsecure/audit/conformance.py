"""Tier 1: the noise in opened sums is what the plan promises, fresh and unrelated.

Sites without rows send nothing but noise; it is opened and held against the plan
(PRIVACY.md section 16).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsecure.audit.bench import Bench
from fedsecure.audit.finding import Check, Tier, judged
from fedsecure.audit.pictures import noise_picture
from fedsecure.audit.randomness import Meter, Provenance
from fedsecure.audit.trials import Trials
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import IntVector, Vector

LEAST_COORDINATES = 10_000
WIDEST_Z = 3.3
WIDEST_R = 5.0
"""Of correlations, in units of 1/sqrt(d)."""
_WANTED_COORDINATES = 30_000
_BINS = 20
_LEAD = (
    "Sites without rows take part: what each sends is noise alone, on its way through "
    "fields, encryption and sum. The auditor holds the run key and opens the sums, and "
    "each site's part too."
)

Opened = NDArray[np.int64]
"""Noise as opened, shape (rounds, sites, d)."""


def conformance(plan: PrivacyPlan, dimension: int, meter: Meter) -> Tier:
    """Return tier 1 for a plan, with models of `dimension` parameters.

    Rounds are pooled until there are 30,000 coordinates.
    """
    rounds = max(2, math.ceil(_WANTED_COORDINATES / dimension))
    provenance, sites = Provenance(meter), plan.min_contributors
    with Bench(plan, dimension) as bench:
        trials = Trials(plan, bench.lattice, meter)
        parts, totals, wrong = [], [], 0
        for number in range(1, rounds + 1):
            sent = [trials.contribution(present=False) for _ in bench.sites]
            for part in sent:
                provenance.saw(part)
            opened = bench.send(number, sent)
            parts.append([opened.alone(i) for i in range(sites)])
            totals.append(opened.sum())
            wrong += int(np.count_nonzero(totals[-1] != sum(sent)))
        sigma = bench.lattice.share_sigma
    noise, total = np.array(parts), np.concatenate(totals)
    ratios = _ratios(noise, total, sigma)
    checks = [
        provenance.check(),
        _exact(wrong, total.size),
        _variance(total, sigma * math.sqrt(sites), plan, sites),
        _each_site(noise, sigma),
        _shape(total, sigma * math.sqrt(sites)),
        *_correlations(noise),
    ]
    picture = noise_picture(total / (sigma * math.sqrt(sites)), ratios, WIDEST_Z)
    figures = {
        "coordinates": total.size,
        "rounds": rounds,
        "sites": sites,
        "parameters": dimension,
        "share_sigma": sigma,
    }
    title = "Is the noise what the plan promises?"
    return Tier(1, title, _LEAD, checks, [picture], figures)


def variance_z(values: IntVector, sigma: float) -> tuple[float, float]:
    """Return the ratio of a variance to sigma^2, and its z-score.

    The sum of squares over sigma^2 is chi-squared with n degrees of freedom; at 10,000
    it is normal to three digits.
    """
    ratio = float(np.mean(np.square(values / sigma)))
    return ratio, (ratio - 1) * math.sqrt(values.size / 2)


def largest_correlation(first: Vector, second: Vector, *, same: bool) -> float:
    """Return the correlation farthest from 0 between rows of two matrices.

    Parameters
    ----------
    first, second : Vector
        Shapes (n, d) and (m, d); a row without any variance correlates with none.
    same : bool
        Whether they are one matrix: a row is then not held against itself.
    """
    found = _unit(first) @ _unit(second).T
    if same:
        np.fill_diagonal(found, 0.0)
    flat = found.ravel()
    return float(flat[np.argmax(np.abs(flat))])


def _unit(rows: Vector) -> Vector:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(norms > 0, norms, 1.0))


def _ratios(
    noise: Opened, total: IntVector, sigma: float
) -> Sequence[tuple[str, float, float]]:
    """Return (label, variance ratio, deviation of an honest ratio) of sum and sites."""
    sites = noise.shape[1]
    rows = [("sum", variance_z(total, sigma * math.sqrt(sites))[0], total.size)]
    for i in range(sites):
        own = noise[:, i].ravel()
        rows.append((f"site-{i + 1}", variance_z(own, sigma)[0], own.size))
    return [(label, ratio, math.sqrt(2 / n)) for label, ratio, n in rows]


def _exact(wrong: int, size: int) -> Check:
    return Check(
        "exact sums",
        judged(passed=wrong == 0),
        wrong,
        "0 wrong",
        f"{wrong:,} of {size:,} opened integers differ from the sum of what was sent.",
    )


def _variance(total: IntVector, sigma: float, plan: PrivacyPlan, sites: int) -> Check:
    ratio, z = variance_z(total, sigma)
    p = float(stats.chi2.sf(ratio * total.size, total.size))
    enough = total.size >= LEAST_COORDINATES
    return Check(
        "variance of the sum",
        judged(passed=enough and abs(z) <= WIDEST_Z),
        z,
        f"|z| <= {WIDEST_Z}",
        f"{ratio:.4f} of the variance that {sites} shares have together, z = {z:+.2f}, "
        f"chi-squared p = {p:.3g}, on {total.size:,} coordinates. The plan counts on "
        f"{plan.shares} shares.",
    )


def _each_site(noise: Opened, sigma: float) -> Check:
    """Judge the worst site; the gate is wider, as the worst of several is asked for."""
    sites = noise.shape[1]
    gate = float(stats.norm.isf(0.0005 / sites))
    found = [variance_z(noise[:, i].ravel(), sigma) for i in range(sites)]
    worst = max(range(sites), key=lambda i: abs(found[i][1]))
    ratio, z = found[worst]
    return Check(
        "variance of each share",
        judged(passed=abs(z) <= gate),
        z,
        f"|z| <= {gate:.2f}",
        f"Farthest off is site-{worst + 1}: {ratio:.4f} of the variance of a share, "
        f"z = {z:+.2f}.",
    )


def _shape(total: IntVector, sigma: float) -> Check:
    edges = stats.norm.ppf(np.linspace(0, 1, _BINS + 1)[1:-1])
    seen = np.bincount(np.digitize(total / sigma, edges), minlength=_BINS)
    statistic = float(np.sum(np.square(seen - total.size / _BINS)) * _BINS / total.size)
    p = float(stats.chi2.sf(statistic, _BINS - 1))
    return Check(
        "shape of the sum",
        judged(passed=p >= 0.001),
        p,
        "p >= 0.001",
        f"Against a Gaussian in {_BINS} equally likely bins: chi-squared "
        f"{statistic:.1f}, p = {p:.3g}.",
    )


def _correlations(noise: Opened) -> list[Check]:
    rounds, sites, d = noise.shape
    by_site = [noise[:, i].astype(np.float64) for i in range(sites)]
    fresh = [largest_correlation(one, one, same=True) for one in by_site]
    apart = [
        largest_correlation(by_site[i], by_site[j], same=False)
        for i in range(sites)
        for j in range(i)
    ]
    pairs = sites * rounds * (rounds - 1) // 2, len(apart) * rounds * rounds
    return [
        _correlation(
            "noise is fresh in every round", "rounds of a site", fresh, pairs[0], d
        ),
        _correlation("sites' noise is unrelated", "sites", apart, pairs[1], d),
    ]


def _correlation(
    name: str, what: str, found: Sequence[float], pairs: int, d: int
) -> Check:
    r, gate = max(found, key=abs, default=0.0), WIDEST_R / math.sqrt(d)
    return Check(
        name,
        judged(passed=abs(r) <= gate),
        r,
        f"|r| <= {gate:.3g}",
        f"The largest of {pairs} correlations between {what} is {r:+.4f}; the same "
        "noise used twice gives 1.",
    )
