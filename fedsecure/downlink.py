"""Which form a sum takes on its way to the sites: seeds, or both polynomials.

With `seeds` a site sends one polynomial and a seed a block, gets one and n seeds back,
and expands n second polynomials to open the sum. With `sum` both polynomials travel,
each way: twice the bytes, and opening costs the same for any n (ENCRYPTION.md 8).
Pure: custodian and sites decide alike from the plan and the model's size.
"""

import math

from fedsecure.errors import ConfigurationError

SUM, SEEDS, AUTO = "sum", "seeds", "auto"
CHOICES = (AUTO, SUM, SEEDS)
_POLYNOMIAL, _SEED = 30_720, 64  # bytes of a block of 4096 coefficients on the wire
_PARAMETERS = 2 * 4095  # of a block, with the widest packing in common use
# CPU seconds of a block: one seeded summand opened, what each summand more costs, the
# same sum as two polynomials, and the second one when encrypting. Measured at 5e5
# parameters with 3, 10 and 16 sites on two virtual EPYC cores; they are here for their
# ratio to the link's seconds, and all parties must reckon with the same.
_OPEN_SEEDS, _EACH_SEED, _OPEN_SUM, _SECOND = 0.82e-3, 0.16e-3, 0.62e-3, 0.08e-3
WORTH_SECONDS = 0.05
"""What a round must gain by `sum` before it pays twice the bytes."""


def downlink_form(choice: str, sites: int, parameters: int, link_mbps: float) -> str:
    """Return "sum" or "seeds".

    Parameters
    ----------
    choice : str
        The plan's: "sum", "seeds", or "auto", which is `seeds` unless the stated link
        makes `sum` quicker by more than `WORTH_SECONDS` a round.
    sites : int
        Summands to expect: the cohort.
    parameters : int
    link_mbps : float
        A site's link in Mbit/s; 0: not stated.

    Raises
    ------
    ConfigurationError
        Another choice.
    """
    if choice not in CHOICES:
        raise ConfigurationError(
            f"encryption.downlink={choice!r}, must be one of {', '.join(CHOICES)}"
        )
    if choice != AUTO:
        return choice
    if not link_mbps > 0:
        return SEEDS
    blocks = math.ceil(parameters / _PARAMETERS)
    gain = blocks * (_by_seeds(sites, link_mbps) - _by_sum(link_mbps))
    return SUM if gain > WORTH_SECONDS else SEEDS


def _by_seeds(sites: int, link_mbps: float) -> float:
    """Return seconds a block and site, up, down and opened."""
    carried = 2 * _POLYNOMIAL + (1 + sites) * _SEED
    return carried * 8e-6 / link_mbps + _OPEN_SEEDS + (sites - 1) * _EACH_SEED


def _by_sum(link_mbps: float) -> float:
    return 4 * _POLYNOMIAL * 8e-6 / link_mbps + _OPEN_SUM + _SECOND
