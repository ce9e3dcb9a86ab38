"""Privacy loss distributions: what a run is calibrated and reported with.

Pessimistic discretisation at 1e-4 (Koskela, Jalko, Honkela 2020; Doroshenko et al.
2022), by dp-accounting. Knows the continuous Gaussian, and counts: on the discrete one
in d dimensions it is no proven bound (PRIVACY.md section 6), on counts, of which a row
changes one, it is exact (docs/adr/0021).
"""

import math
from dataclasses import dataclass
from typing import Any

from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import (
    from_discrete_gaussian_mechanism,
)

from fedsecure.accounting import DISCRETE, PrivacyEvent, Relation, Search
from fedsecure.errors import ConfigurationError

GRID = 1e-4


@dataclass(frozen=True)
class _CountsStep(DpEvent):  # type: ignore[misc]
    """One release of counts, as dp-accounting's tree of events wants it."""

    sigma: float


class _Composer(PLDAccountant):  # type: ignore[misc]
    """dp-accounting's accountant, taught one more event in the place meant for it."""

    _pld: Any

    def _maybe_compose(self, event: DpEvent, count: int, do_compose: bool) -> Any:
        if not isinstance(event, _CountsStep):
            return super()._maybe_compose(event, count, do_compose)
        if do_compose:
            # A row that is replaced leaves one count and enters another: two shifts of
            # one, each under noise of its own.
            replaced = self.neighboring_relation is NeighboringRelation.REPLACE_ONE
            one = from_discrete_gaussian_mechanism(
                event.sigma, 1, value_discretization_interval=GRID
            )
            times = 2 * count if replaced else count
            self._pld = self._pld.compose(one.self_compose(times))
        return None


class _Pld:
    """An accountant over privacy loss distributions; see `create`."""

    def __init__(self, relation: Relation) -> None:
        # Under replace-one dp-accounting counts a Gaussian's shift as twice the clip
        # norm, which is what the engine's sum can move by.
        self._inner = _Composer(NeighboringRelation[relation.name], GRID)

    def supports(self, event: PrivacyEvent) -> bool:
        """Return whether this is a Poisson-sampled continuous Gaussian, or counts.

        The discrete one is refused: see `PrivacyEvent.nominal` for what may be shown.
        """
        return event.is_gaussian() or event.is_counts()

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
        step: DpEvent = _CountsStep(event.noise_multiplier)
        if event.is_gaussian():
            noise = GaussianDpEvent(event.noise_multiplier)
            step = PoissonSampledDpEvent(event.sample_rate, noise)
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
