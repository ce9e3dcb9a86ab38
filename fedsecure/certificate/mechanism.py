"""How the noise was made: grid, clamp, generator, and what its tables lack.

A sampler that is off by a statistical distance t in all its draws together keeps
epsilon and costs (1 + e^epsilon) t of delta (PRIVACY.md section 15).
"""

import math
from collections.abc import Mapping

from fedsecure.encoding import profile
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import DiscreteGaussian, Grid
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import JSON

GENERATOR = "the operating system's (os.urandom), for samples and noise"
SAMPLER = "discrete Gaussian by inversion of a table of 128-bit thresholds"


def mechanism(
    plan: PrivacyPlan,
    encryption: Mapping[str, JSON],
    sites: int,
    parameters: int,
    steps: int,
    epsilon: float,
) -> dict[str, JSON]:
    """Return the figures of a run's noise.

    Parameters
    ----------
    encryption : mapping
        The plan's section.
    sites : int
        K: whose draws are counted, all of them.
    parameters : int
        d, coordinates of the model; at least 1.
    steps : int
        Noisy steps that were charged to the site with most of them.
    epsilon : float
        What delta's extra is reckoned with; the largest one promised.
    """
    if plan.mode.shared:
        bits = profile(str(encryption["profile"])).field_bits
        lattice = Lattice.of(plan, parameters, bits, sites)
        sigma, sensitivity = lattice.share_sigma, lattice.sensitivity
        scale, inflation = lattice.steps, lattice.inflation()
        clamp: JSON = lattice.clamp
    else:
        grid = Grid.choose(plan.clip_norm, plan.noise_multiplier, parameters)
        sigma, sensitivity, scale = grid.sigma, grid.sensitivity, grid.steps
        root = math.sqrt(parameters)
        inflation, clamp = root / (sensitivity - root), None
    distance = DiscreteGaussian(sigma).distance
    draws = steps * parameters * sites
    extra = (1 + math.exp(epsilon)) * draws * distance
    return {
        "generator": GENERATOR,
        "sampler": SAMPLER,
        "parameters": parameters,
        "grid_steps_per_unit": scale,
        "integer_sensitivity": sensitivity,
        "sigma_in_steps": sigma,
        "inflation": inflation,
        "clamp": clamp,
        "draws": draws,
        "distance_per_draw": distance,
        "distance_per_draw_log2": math.log2(distance),
        "charged_to_delta": extra,
        "delta_with_it": plan.delta + extra,
    }
