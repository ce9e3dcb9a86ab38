"""The least noise that keeps a run within its epsilon."""

import math
from collections.abc import Callable, Sequence

from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.plan import NOISE_BOUNDS, AccountantFactory


def calibrate(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    relation: Relation,
    accountant: AccountantFactory,
    beside: Sequence[PrivacyEvent] = (),
) -> float:
    """Return the least noise multiplier that keeps `steps` steps within the target.

    Parameters
    ----------
    target_epsilon : float
        Never exceeded; undercut by at most 0.05%.
    accountant : AccountantFactory
        The one the run is enforced with: another one ends it early.
    beside : sequence of PrivacyEvent
        As for `calibrate_event`.

    Raises
    ------
    ConfigurationError
        If the target is not positive and finite, or no multiplier in [0.1, 1024]
        meets it closely.
    """

    def event(noise_multiplier: float) -> PrivacyEvent:
        return PrivacyEvent("poisson_gaussian", noise_multiplier, sample_rate, steps)

    return calibrate_event(target_epsilon, delta, relation, accountant, event, beside)


def calibrate_event(
    target_epsilon: float,
    delta: float,
    relation: Relation,
    accountant: AccountantFactory,
    event: Callable[[float], PrivacyEvent],
    beside: Sequence[PrivacyEvent] = (),
) -> float:
    """Return the least noise multiplier whose event stays within the target.

    Parameters
    ----------
    target_epsilon, accountant
        As for `calibrate`, with the same exceptions.
    event : callable
        Noise multiplier -> everything the run does; more noise must not cost more.
    beside : sequence of PrivacyEvent
        What the same rows pay for too, whatever the multiplier: together they stay
        within the target.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise ConfigurationError(f"target_epsilon={target_epsilon}, must be positive")

    def cost(noise_multiplier: float) -> float:
        spent = accountant(relation)
        for each in (event(noise_multiplier), *beside):
            spent.compose(each)
        return spent.epsilon(delta)

    low, high = _bracket(cost, target_epsilon)
    return _narrow(cost, target_epsilon, low, high)


_Point = tuple[float, float]
"""Noise multiplier and its epsilon."""


def _bracket(cost: Callable[[float], float], target: float) -> tuple[_Point, _Point]:
    """Return neighbours in a doubling grid: one costs too much, the next does not."""
    least, most = NOISE_BOUNDS
    z = 1.0
    spent = cost(z)
    while spent > target:
        before, z = (z, spent), 2 * z
        if z > most:
            raise ConfigurationError(
                f"target_epsilon={target} needs a noise multiplier above {most}; "
                "raise epsilon, or lower sample_rate or the number of steps"
            )
        spent = cost(z)
        if spent <= target:
            return before, (z, spent)
    while spent <= target:
        after, z = (z, spent), z / 2
        if z < least:
            raise ConfigurationError(
                f"target_epsilon={target} needs a noise multiplier below {after[0]}, "
                f"which costs {after[1]:.4g}; lower epsilon to that or below"
            )
        spent = cost(z)
    return (z, spent), after


def _narrow(
    cost: Callable[[float], float], target: float, low: _Point, high: _Point
) -> float:
    """Close in on the target from the safe side.

    False position in log-log, where the curve is almost straight: the aim lies a
    quarter of the tolerance below the target, so that a near miss is a hit.
    """
    aim = math.log(target * (1 - 1.25e-4))
    for turn in range(60):
        if high[1] >= target * (1 - 5e-4):
            return high[0]
        x0, x1 = math.log(low[0]), math.log(high[0])
        y0, y1 = math.log(low[1]) - aim, math.log(max(high[1], 1e-12)) - aim
        share = y0 / (y0 - y1)
        # Every third turn halves, so that a bent curve cannot hold one end still.
        share = 0.5 if turn % 3 == 2 else min(max(share, 0.02), 0.98)
        z = math.exp(x0 + share * (x1 - x0))
        spent = cost(z)
        low, high = ((z, spent), high) if spent > target else (low, (z, spent))
    return high[0]
