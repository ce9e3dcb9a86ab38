"""The integer grid of noise that sites share, sized by the sum it must hold.

Per step each site's clipped sum is scaled, rounded (deterministically), clamped, and
given a share of discrete Gaussian noise; nothing touches it after (PRIVACY.md section
5). The grid follows from public numbers alone, so all sites have the same:

    K A + 9 z D sqrt(K / h)  <=  2^(f - 1) - 1,   A = a s C,   D = s C + sqrt(d)

(ENCRYPTION.md section 5): K sites, h shares counted on, f bits a field, z noise
multiplier, C clip norm, d coordinates. Nine standard deviations leave 2e-19.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedsecure.accounting import PrivacyEvent
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.mechanism import MAX_SIGMA, DiscreteGaussian, RandomSource
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import IntVector, Vector

CLAMP = 16.0
"""a: a coordinate of a site's sum is clamped to so many clip norms, before noise."""
TARGET_INFLATION = 0.01
"""Noise that rounding costs; a finer grid would be paid for in fields and tables."""
MOST_INFLATION = 1.0
_TAIL = 9.0


@dataclass(frozen=True, slots=True)
class Lattice:
    """One run's grid.

    Attributes
    ----------
    steps : float
        s: grid steps a unit of gradient.
    sensitivity : float
        D = s C + sqrt(d), in steps.
    share_sigma : float
        Standard deviation of one site's share, in steps: z D / sqrt(h).
    clamp : int
        A: largest absolute integer of one site before noise.
    dimension : int
        d.
    """

    steps: float
    sensitivity: float
    share_sigma: float
    clamp: int
    dimension: int

    @classmethod
    def of(
        cls, plan: PrivacyPlan, dimension: int, field_bits: int, sites: int
    ) -> "Lattice":
        """Return the grid of a plan, a model and a field.

        Raises
        ------
        ConfigurationError
            Rounding would cost as much noise again as the plan promises: the message
            says what to change.
        """
        root, h = math.sqrt(dimension), plan.shares
        wide = _TAIL * plan.noise_multiplier * math.sqrt(sites / h)
        room = 2 ** (field_bits - 1) - 1 - sites  # each clamp rounds up by at most 1
        by_field = (room - wide * root) / (sites * CLAMP + wide)
        by_table = MAX_SIGMA * math.sqrt(h) / plan.noise_multiplier - root
        scaled = min(root / TARGET_INFLATION, by_field, by_table)
        if scaled * MOST_INFLATION < root:
            raise ConfigurationError(
                f"{dimension} parameters with noise_multiplier "
                f"{plan.noise_multiplier:.4g} do not fit fields of {field_bits} bits: "
                "rounding would double the noise; choose encryption.profile=wide, "
                "fewer parameters, or fewer and larger steps"
            )
        sensitivity = math.nextafter(scaled + root, math.inf)
        sigma = math.nextafter(
            plan.noise_multiplier * sensitivity / math.sqrt(h), math.inf
        )
        clamp = math.ceil(CLAMP * scaled)
        return cls(scaled / plan.clip_norm, sensitivity, sigma, clamp, dimension)

    def inflation(self) -> float:
        """Return the noise that rounding costs, over what it would be without."""
        root = math.sqrt(self.dimension)
        return root / (self.sensitivity - root)

    def event(self, plan: PrivacyPlan, rounds: int = 1) -> PrivacyEvent:
        """Return what `rounds` rounds do to the data, in the accountant's words."""
        return PrivacyEvent.of_shares(
            plan.noise_multiplier,
            plan.sample_rate,
            plan.steps_per_round * rounds,
            plan.shares,
            self.sensitivity,
            self.dimension,
        )

    def contribute(self, total: Vector, source: RandomSource) -> tuple[IntVector, int]:
        """Return a clipped sum on the grid with this site's share of noise.

        Parameters
        ----------
        total : Vector
            Shape (d,), the sum of clipped gradients.
        source : RandomSource
            The system's generator; with any other epsilon is void.

        Returns
        -------
        IntVector, int
            Integers to be summed as they are, and how many coordinates were clamped
            before the noise: a number that stays at the site.

        Raises
        ------
        ConfigurationError
            The sum has another length, or holds NaN or Inf.
        """
        if total.shape != (self.dimension,):
            raise ConfigurationError(
                f"a sum of shape {total.shape}, the grid is for ({self.dimension},)"
            )
        if not np.isfinite(total).all():
            raise ConfigurationError("a clipped sum holds NaN or Inf: nothing was sent")
        rounded = np.rint(total * self.steps)
        clamped = int(np.count_nonzero(np.abs(rounded) > self.clamp))
        np.clip(rounded, -self.clamp, self.clamp, out=rounded)
        share = DiscreteGaussian(self.share_sigma).draw(self.dimension, source)
        return rounded.astype(np.int64) + share, clamped
