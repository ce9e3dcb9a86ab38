"""The audit of this installation: which plan, which tiers, one after the other.

It is the code that is audited, at noise multiplier 1, where trials tell most: the same
code serves every plan (PRIVACY.md section 16).
"""

from collections.abc import Callable, Collection, Mapping

from fedsecure.audit.conformance import conformance
from fedsecure.audit.finding import Check, Tier, Verdict
from fedsecure.audit.inversion import inversion
from fedsecure.audit.mechanism import FIELDS, mechanism
from fedsecure.audit.membership import membership
from fedsecure.audit.randomness import Meter
from fedsecure.errors import ConfigurationError, NotFinite
from fedsecure.privacy.mechanism import RandomSource
from fedsecure.privacy.plan import Mode, PrivacyPlan

PLAN = PrivacyPlan(
    Mode.EXAMPLE_DISTRIBUTED,
    clip_norm=1.0,
    noise_multiplier=1.0,
    sample_rate=1.0,
    steps_per_round=1,
    rounds=16,
    delta=1e-5,
    divisor=1000.0,
    min_contributors=5,
    max_colluders=1,
)
CIPHERTEXTS = 16
"""Of a world in tier 2: 131,040 trials, twice what the claim at multiplier 1 asks."""

_REFUSED = (
    "Noise that is not of whole numbers leaks through its low digits. The package "
    "refused to encrypt what its own mechanism made, and the tier ended there."
)

Part = Callable[[Meter], Tier]
_TIERS: Mapping[int, tuple[Part, ...]] = {
    1: (lambda meter: conformance(PLAN, FIELDS, meter),),
    2: (lambda meter: mechanism(PLAN, CIPHERTEXTS, meter),),
    3: (
        lambda meter: membership(PLAN, meter),
        lambda meter: inversion(PLAN, meter),
    ),
}


def run_audit(
    tiers: Collection[int],
    source: RandomSource,
    show: Callable[[Tier], None] = lambda _: None,
) -> list[Tier]:
    """Return what the tiers asked for have found, in their order.

    Parameters
    ----------
    tiers : collection of int
        Of 1, 2 and 3.
    source : RandomSource
        What sites draw noise from. Another one than the system's is a failure.
    show : callable
        Told of each as it ends.

    Raises
    ------
    ConfigurationError
        No tier, or an unknown one.
    """
    unknown = sorted(set(tiers) - set(_TIERS))
    if unknown or not tiers:
        raise ConfigurationError(
            f"tiers {sorted(tiers)}: choose some of {', '.join(map(str, _TIERS))}"
        )
    found = []
    for number in sorted(set(tiers)):
        for part in _TIERS[number]:
            found.append(_found(number, part, source))
            show(found[-1])
    return found


def _found(number: int, part: Part, source: RandomSource) -> Tier:
    """Return what a part finds; that the product itself refuses its noise fails it."""
    try:
        return part(Meter(source))
    except NotFinite as bad:
        check = Check("integers", Verdict.FAILED, 0.0, "whole numbers", str(bad))
        return Tier(number, "Does this code send what it made?", _REFUSED, [check])


def read_tiers(text: str) -> list[int]:
    """Return the tiers that a text names, as in "1,2,3"; ConfigurationError if none."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as bad:
        raise ConfigurationError(
            f"--tier {text!r}: numbers with commas between, as in 1,2,3"
        ) from bad
