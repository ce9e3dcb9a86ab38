"""The socket for privacy accountants; sites only.

A plug's ``create(relation)`` returns an `Accountant` that has spent nothing; it is a
`SearchAccountant` too. `guarantee` values a list of events by name and says under which
relation; spending over several runs, modes and data sets is one such list.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from fedsecure import registry

GAUSSIAN, DISCRETE = "poisson_gaussian", "poisson_discrete_gaussian"
COUNTS = "discrete_gaussian_counts"
LEAST_COUNT_NOISE = 2.0
"""Rows: least standard deviation that the house's sampler draws."""


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
        "poisson_gaussian" (continuous), "poisson_discrete_gaussian", or
        "discrete_gaussian_counts": counts of rows, each row in one of them, released by
        one site with noise of its own.
    noise_multiplier : float
        Standard deviation of the noise over the sensitivity (the paper's sigma or z).
        Discrete: of all counted shares together, over the integer sensitivity D.
        Counts: standard deviation in rows, for a row changes one count by one.
    sample_rate : float
        Poisson sampling probability q, in (0, 1].
    steps : int
        How often it was done.
    counted_shares : int
        Discrete: how many sites' shares the multiplier counts on; continuous: 0.
    share_sigma : float
        Discrete: parameter of one share, in grid steps, at least 1/2; continuous: 0.
    dimension : int
        Discrete: number of coordinates that carry noise; continuous: 0.
    """

    kind: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    counted_shares: int = 0
    share_sigma: float = 0.0
    dimension: int = 0

    @classmethod
    def of_shares(
        cls,
        noise_multiplier: float,
        sample_rate: float,
        steps: int,
        shares: int,
        sensitivity: float,
        dimension: int,
    ) -> "PrivacyEvent":
        """Return the discrete event of shares that add up to a multiplier.

        Parameters
        ----------
        shares : int
            How many are counted: h = min_contributors - max_colluders.
        sensitivity : float
            D, in grid steps: rounding included (PRIVACY.md section 5).
        """
        sigma = noise_multiplier * sensitivity / math.sqrt(shares)
        return cls(
            DISCRETE, noise_multiplier, sample_rate, steps, shares, sigma, dimension
        )

    @classmethod
    def of_counts(cls, noise_multiplier: float, releases: int) -> "PrivacyEvent":
        """Return the event of noisy counts, released so many times (docs/adr/0021)."""
        return cls(COUNTS, noise_multiplier, 1.0, releases)

    def is_counts(self) -> bool:
        """Return whether these are noisy counts with sane numbers; none is sampled."""
        lattice = (self.counted_shares, self.share_sigma, self.dimension)
        return (
            self.kind == COUNTS
            and lattice == (0, 0, 0)
            and self._is_sane()
            and self.sample_rate == 1
            and self.noise_multiplier >= LEAST_COUNT_NOISE
        )

    def is_gaussian(self) -> bool:
        """Return whether this is a continuous Gaussian with sane numbers."""
        lattice = (self.counted_shares, self.share_sigma, self.dimension)
        return self.kind == GAUSSIAN and lattice == (0, 0, 0) and self._is_sane()

    def is_discrete(self) -> bool:
        """Return whether this is a sum of discrete Gaussians with sane numbers.

        Below half a grid step the bound is not proven, and an integer sensitivity
        below one grid step is somebody's mistake.
        """
        return (
            self.kind == DISCRETE
            and self._is_sane()
            and self.counted_shares >= 1
            and self.dimension >= 1
            and math.isfinite(self.share_sigma)
            and self.share_sigma >= 0.5
            and self.sensitivity() >= 1 - 1e-9
        )

    def sensitivity(self) -> float:
        """Return D that a discrete event implies, in grid steps: all noise over z."""
        return math.sqrt(self.counted_shares) * self.share_sigma / self.noise_multiplier

    def nominal(self) -> "PrivacyEvent":
        """Return the continuous Gaussian of the same multiplier.

        What `pld` says of it is printed as "nominal" beside the discrete bound. It is
        no proven bound for the discrete noise: never enforce with it. Counts stay what
        they are: `pld` has a bound for them.
        """
        if self.kind == COUNTS:
            return self
        return PrivacyEvent(
            GAUSSIAN, self.noise_multiplier, self.sample_rate, self.steps
        )

    def own_share(self) -> "PrivacyEvent":
        """Return a discrete event as all other sites together see it.

        They know every share but one, so one is counted: the second epsilon of
        PRIVACY.md section 4.
        """
        alone = self.noise_multiplier / math.sqrt(self.counted_shares)
        return replace(self, noise_multiplier=alone, counted_shares=1)

    def of_a_part(self) -> "PrivacyEvent":
        """Return the event as a part of its unit sees it: a row of a person, of a site.

        The unit stays when the part goes. It was clipped with it and is without it, so
        its vectors may lie two clip norms apart; and it is sampled or not in both, so
        that sampling hides which of the two was added, and nothing more: unsampled, at
        half the multiplier (docs/adr/0023).
        """
        return replace(
            self, noise_multiplier=self.noise_multiplier / 2, sample_rate=1.0
        )

    def _is_sane(self) -> bool:
        return (
            math.isfinite(self.noise_multiplier)
            and self.noise_multiplier > 0
            and 0 < self.sample_rate <= 1
            and self.steps >= 1
        )


@dataclass(frozen=True, slots=True)
class Search:
    """Runs with different settings of which only the best one's output is ever seen.

    Papernot and Steinke 2022 (arXiv 2110.03620): the number of runs is drawn at
    random, and nothing of the others leaves. A run of a federation does not qualify:
    its sums are opened as it goes, and each such run is charged in full, by itself.

    Attributes
    ----------
    run : tuple of PrivacyEvent
        What one run does to the data.
    mean : float
        Expected number of runs, at least 1.
    shape : float
        Of the negative binomial law it is drawn from, at least 0: 0 logarithmic, 1
        geometric, infinity Poisson.
    """

    run: tuple[PrivacyEvent, ...]
    mean: float
    shape: float


@dataclass(frozen=True, slots=True)
class Guarantee:
    """An epsilon with everything it depends on; its text holds all of them.

    Attributes
    ----------
    epsilon, delta : float
    relation : Relation
        What a neighbouring data set is.
    accountant : str
        The plug that computed it.
    nominal : bool
        True if discrete noise was valued as if it were continuous: no proven bound.
    """

    epsilon: float
    delta: float
    relation: Relation
    accountant: str
    nominal: bool = False

    def __str__(self) -> str:
        """Return one line for a person."""
        word = f"nominal {self.accountant}" if self.nominal else self.accountant
        words = str(self.relation).replace("_", "-")
        return f"ε {self.epsilon:.4g} at δ {self.delta:g}, {words} ({word})"


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


class SearchAccountant(Protocol):
    """Charges a hyper-parameter search, or says that it cannot."""

    def compose_search(self, search: Search) -> None:
        """Add one search; ConfigurationError if it is not supported."""
        ...


def grouped(events: Iterable[PrivacyEvent]) -> list[PrivacyEvent]:
    """Merge equal events: composition does not depend on the order, its cost does."""
    steps: dict[PrivacyEvent, int] = {}
    for event in events:
        key = replace(event, steps=0)
        steps[key] = steps.get(key, 0) + event.steps
    merged = [replace(key, steps=count) for key, count in steps.items()]
    return sorted(merged, key=lambda event: (event.kind, repr(event)))


def enforced_with(events: Iterable[PrivacyEvent]) -> str:
    """Return the plug that events are calibrated, enforced and reported with.

    `pld` where all noise is continuous, `rdp` as soon as some is discrete: only there
    is it a proven bound (PRIVACY.md section 6). Counts go with either: a row is in one
    of them, so their noise is that of one dimension, where both are proven.
    """
    return "rdp" if any(event.kind == DISCRETE for event in events) else "pld"


def composed(
    name: str, relation: Relation, events: Sequence[PrivacyEvent | Search]
) -> Accountant:
    """Return a named accountant that has spent `events`, equal ones as one.

    Raises
    ------
    ConfigurationError
        If the plug does not know an event under `relation`.
    """
    accountant = registry.load("accounting", name).create(relation)
    for event in grouped(e for e in events if isinstance(e, PrivacyEvent)):
        accountant.compose(event)
    for search in events:
        if isinstance(search, Search):
            accountant.compose_search(search)
    spent: Accountant = accountant
    return spent


def guarantee(
    name: str,
    relation: Relation,
    events: Sequence[PrivacyEvent | Search],
    delta: float,
) -> Guarantee:
    """Return what a list of events costs, valued by one accountant.

    Events of several runs, models, modes and data sets stand in one list: a person may
    be in all of them, so nothing is taken to be disjoint.

    Parameters
    ----------
    name : str
        The plug, from `registry.names("accounting")`.

    Raises
    ------
    ConfigurationError
        If the plug does not know an event under `relation`, or delta is not strictly
        between 0 and 1.
    """
    epsilon = composed(name, relation, events).epsilon(delta)
    return Guarantee(epsilon, delta, relation, name)


def nominal(
    relation: Relation, events: Sequence[PrivacyEvent], delta: float
) -> Guarantee:
    """Return `pld` of continuous Gaussians with the multipliers of `events`.

    Raises
    ------
    ConfigurationError
        As `guarantee`.
    """
    spent = guarantee("pld", relation, [e.nominal() for e in events], delta)
    return replace(spent, nominal=any(e.kind == DISCRETE for e in events))
