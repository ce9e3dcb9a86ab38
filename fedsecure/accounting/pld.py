"""Privacy loss distributions: what a run is calibrated and reported with.

Pessimistic discretisation at 1e-4 (Koskela, Jalko, Honkela 2020; Doroshenko et al.
2022), by dp-accounting. Knows the continuous Gaussian only: on the discrete one in d
dimensions it is no proven bound (PRIVACY.md section 6).
"""

import math

from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant

from fedsecure.accounting import DISCRETE, PrivacyEvent, Relation, Search
from fedsecure.errors import ConfigurationError

GRID = 1e-4


class _Pld:
    """An accountant over privacy loss distributions; see `create`."""

    def __init__(self, relation: Relation) -> None:
        # Under replace-one dp-accounting counts a Gaussian's shift as twice the clip
        # norm, which is what the engine's sum can move by.
        self._inner = PLDAccountant(NeighboringRelation[relation.name], GRID)

    def supports(self, event: PrivacyEvent) -> bool:
        """Return whether this is a Poisson-sampled continuous Gaussian.

        The discrete one is refused: see `PrivacyEvent.nominal` for what may be shown.
        """
        return event.is_gaussian()

    def compose(self, event: PrivacyEvent) -> None:
        """Add one event.

        Raises
        ------
        ConfigurationError
            If the event is not supported; nothing was added.
        """
        if not self.supports(event):
            raise ConfigurationError(
                f"accounting=pld does not know {event}; {_advice(event)}"
            )
        step = PoissonSampledDpEvent(
            event.sample_rate, GaussianDpEvent(event.noise_multiplier)
        )
        self._inner.compose(SelfComposedDpEvent(step, event.steps))

    def compose_search(self, search: Search) -> None:
        """Refuse: what a search costs is proven for Renyi divergences only.

        Raises
        ------
        ConfigurationError
            Always.
        """
        raise ConfigurationError(
            f"accounting=pld has no bound for a search over {len(search.run)} events; "
            "use accounting=rdp"
        )

    def epsilon(self, delta: float) -> float:
        """Return an upper bound on epsilon at `delta` for all events composed.

        Raises
        ------
        ConfigurationError
            If delta is not strictly between 0 and 1, or the numbers do not settle.
        """
        if not 0 < delta < 1:
            raise ConfigurationError(f"delta={delta}, must lie between 0 and 1")
        try:
            epsilon = float(self._inner.get_epsilon(delta))
        except Exception as failure:
            raise ConfigurationError(
                f"accounting=pld cannot value these events: {failure}"
            ) from failure
        if math.isnan(epsilon):
            raise ConfigurationError("accounting=pld returned NaN; raise the noise")
        return epsilon


def _advice(event: PrivacyEvent) -> str:
    if event.kind == DISCRETE:
        return (
            "it is no proven bound for discrete noise: use accounting=rdp, and show "
            "the pld of its nominal() beside it"
        )
    return "refused"


def create(relation: Relation) -> _Pld:
    """Return an accountant that has spent nothing under `relation`."""
    return _Pld(relation)
