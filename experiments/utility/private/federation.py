"""Private training by the product's arithmetic, in one thread, without its wires.

Plan, calibration, lattice, noise, grid and clipping are the package's. Encryption is
left out of the loop, for the sum it opens is exact.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from fedsecure import registry
from fedsecure.accounting import Relation
from fedsecure.encoding import profile
from fedsecure.errors import ConfigurationError
from fedsecure.planning import MOST_INFLATION, event_of
from fedsecure.privacy.calibration import calibrate, calibrate_event
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import DiscreteGaussian, Grid, noisy_sum, poisson_mask
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import Vector
from private.problems import DELTA, ROWS, SITES, Problem


@dataclass(frozen=True)
class Setting:
    """How an arm trains; chosen before, on splits that are not reported."""

    steps: int
    sample_rate: float
    clip_norm: float
    rate: float
    steps_per_round: int = 1


class Seeded:
    """SHAKE-256 as random bytes: repeats the table; in a run epsilon would be void."""

    def __init__(self, *words: object) -> None:
        self._seed, self._calls = "/".join(map(str, words)), 0

    def bytes(self, n: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(f"{self._seed}/{self._calls}".encode()).digest(n)


def shared_plan(name: str, setting: Setting, epsilon: float, h: int) -> PrivacyPlan:
    """Return the plan of shared noise, calibrated, with h shares counted on.

    h = 4 is the product's own rule for five sites. It refuses h = 5 of 5, for every
    site knows its share; that arm is written as 6 less 1 and is for comparison only.
    """
    return PrivacyPlan(
        Mode.EXAMPLE_DISTRIBUTED,
        clip_norm=setting.clip_norm,
        noise_multiplier=_shared_noise(setting.steps, setting.sample_rate, epsilon, h),
        sample_rate=setting.sample_rate,
        steps_per_round=1,
        rounds=setting.steps,
        delta=DELTA,
        divisor=ROWS[name] * setting.sample_rate,
        min_contributors=h + 1,
        max_colluders=1,
    )


@cache
def _shared_noise(steps: int, sample_rate: float, epsilon: float, h: int) -> float:
    """Return the multiplier as the product calibrates it: RDP at whole orders."""
    plan = PrivacyPlan(
        Mode.EXAMPLE_DISTRIBUTED,
        clip_norm=1.0,
        noise_multiplier=1.0,
        sample_rate=sample_rate,
        steps_per_round=1,
        rounds=steps,
        delta=DELTA,
        divisor=1.0,
        min_contributors=h + 1,
        max_colluders=1,
    )
    return calibrate_event(
        epsilon,
        DELTA,
        Relation.ADD_OR_REMOVE_ONE,
        registry.load("accounting", "rdp").create,
        lambda z: event_of(replace(plan, noise_multiplier=z), steps),
    )


def lattice(plan: PrivacyPlan, dimension: int) -> Lattice:
    """Return the grid in the narrowest fields that cost at most 2% of noise."""
    try:
        grid = Lattice.of(plan, dimension, profile("20").field_bits, SITES)
    except ConfigurationError:
        grid = None
    if grid is not None and grid.inflation() <= MOST_INFLATION:
        return grid
    return Lattice.of(plan, dimension, profile("wide").field_bits, SITES)


def distributed(
    problem: Problem, setting: Setting, epsilon: float, h: int, draw: int
) -> float:
    """Return the accuracy of `example_distributed`, all five sites alive."""
    plan = shared_plan(problem.name, setting, epsilon, h)
    model, grid = problem.first, lattice(plan, problem.first.size)
    source = Seeded("distributed", problem.split, h, draw)
    for _ in range(setting.steps):
        total = np.zeros(model.size, dtype=np.int64)
        for rows in problem.sites:
            mask = poisson_mask(len(rows), setting.sample_rate, source)
            part = problem.clipped_sum(model, rows.taken(mask), setting.clip_norm)
            total += grid.contribute(part, source)[0]
        model = model - setting.rate / (grid.steps * plan.divisor) * total
    return problem.accuracy(model)


@cache
def central_noise(
    steps: int, sample_rate: float, epsilon: float, accountant: str
) -> float:
    """Return the multiplier of one curator, or of a site alone."""
    return calibrate(
        epsilon,
        DELTA,
        sample_rate,
        steps,
        Relation.ADD_OR_REMOVE_ONE,
        registry.load("accounting", accountant).create,
    )


def pooled(
    problem: Problem, setting: Setting, epsilon: float, accountant: str, draw: int
) -> float:
    """Return the accuracy of DP-SGD on all rows in one place, with float noise."""
    steps, rate = setting.steps, setting.sample_rate
    z, rows = central_noise(steps, rate, epsilon, accountant), problem.pooled
    noise = np.random.default_rng([1, problem.split, draw])
    model, divisor = problem.first, ROWS[problem.name] * setting.sample_rate
    for _ in range(setting.steps):
        mask = noise.random(len(rows)) < setting.sample_rate
        total = problem.clipped_sum(model, rows.taken(mask), setting.clip_norm)
        total += noise.normal(0, z * setting.clip_norm, total.size)
        model = model - setting.rate / divisor * total
    return problem.accuracy(model)


def local(problem: Problem, setting: Setting, epsilon: float, draw: int) -> float:
    """Return the accuracy of `example_local`: full noise at each site, PLD."""
    steps, rate = setting.steps, setting.sample_rate
    z, clip = central_noise(steps, rate, epsilon, "pld"), setting.clip_norm
    grid = Grid.choose(clip, z, problem.first.size)
    noise, source = DiscreteGaussian(grid.sigma), Seeded("local", problem.split, draw)
    divisor = ROWS[problem.name] / SITES * setting.sample_rate
    model = problem.first
    for _ in range(setting.steps // setting.steps_per_round):
        ends: list[Vector] = []
        for rows in problem.sites:
            own = model
            for _ in range(setting.steps_per_round):
                mask = poisson_mask(len(rows), setting.sample_rate, source)
                part = problem.clipped_sum(own, rows.taken(mask), clip)
                noised = noisy_sum(part, grid, noise, source)
                own = own - setting.rate / divisor * noised
            ends.append(own)
        model = np.mean(ends, axis=0)
    return problem.accuracy(model)


def without(problem: Problem) -> float:
    """Return the accuracy without privacy: plain gradient descent on all rows."""
    model, rows = problem.first, problem.pooled
    rate = 2.0 if problem.name == "digits" else 1.0
    for _ in range(400):
        model = model - rate * problem.gradient(model, rows)
    return problem.accuracy(model)
