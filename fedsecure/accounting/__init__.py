"""The socket for privacy accountants; sites only.

A plug's ``create(relation)`` returns an `Accountant` that has spent nothing.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Relation(StrEnum):
    """The neighbouring relation an epsilon is about; always printed beside it."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_ONE = "replace_one"


@dataclass(frozen=True, slots=True)
class PrivacyEvent:
    """What was done to the data, in the accountant's words.

    Attributes
    ----------
    kind : str
        "poisson_gaussian" (continuous) or "poisson_discrete_gaussian".
    noise_multiplier : float
        Standard deviation of the noise over the sensitivity (the paper's sigma or z).
    sample_rate : float
        Poisson sampling probability q, in (0, 1].
    steps : int
        How often it was done.
    """

    kind: str
    noise_multiplier: float
    sample_rate: float
    steps: int


class Accountant(Protocol):
    """Composes events and says what they cost."""

    def supports(self, event: PrivacyEvent) -> bool:
        """Return False for an event it does not know; the run is then refused."""
        ...

    def compose(self, event: PrivacyEvent) -> None:
        """Add one event; ConfigurationError if it is not supported."""
        ...

    def epsilon(self, delta: float) -> float:
        """Return epsilon at `delta` for everything composed so far."""
        ...
