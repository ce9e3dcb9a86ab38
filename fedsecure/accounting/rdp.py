"""Renyi differential privacy: the guard of every path, and the bound of the discrete.

Continuous: moments of the sampled Gaussian (Mironov, Talwar, Zhang 2019) by
dp-accounting; never below `pld`, so its yes is safe and its no a reason to ask `pld`.
Discrete: `fedsecure.moments`, whole orders only; its no is final. The conversion is
that of Canonne, Kamath, Steinke 2020, Prop. 12.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import RdpAccountant

from fedsecure.accounting import PrivacyEvent, Relation, Search
from fedsecure.errors import ConfigurationError
from fedsecure.moments import ORDERS, discrete_rdp

_ALL_ORDERS = sorted({*RdpAccountant().orders.tolist(), *map(float, ORDERS)})


@dataclass(frozen=True)
class _DiscreteStep(DpEvent):  # type: ignore[misc]
    """One step of the discrete path, as dp-accounting's tree of events wants it."""

    event: PrivacyEvent

    def rdp(self) -> np.ndarray:
        """Return the bound at `_ALL_ORDERS`; infinite at orders that are not whole."""
        e = self.event
        values = discrete_rdp(
            e.noise_multiplier,
            e.sample_rate,
            e.counted_shares,
            e.share_sigma,
            e.dimension,
        )
        known = dict(zip(map(float, ORDERS), values.tolist(), strict=True))
        return np.array([known.get(order, math.inf) for order in _ALL_ORDERS])


class _Composer(RdpAccountant):  # type: ignore[misc]
    """dp-accounting's accountant, taught one more event in the place meant for it."""

    _rdp: Any

    def _maybe_compose(self, event: DpEvent, count: int, do_compose: bool) -> Any:
        if not isinstance(event, _DiscreteStep):
            return super()._maybe_compose(event, count, do_compose)
        if do_compose:
            self._rdp = self._rdp + count * event.rdp()
        return None


class _Rdp:
    """An accountant over Renyi divergences; see `create`."""

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._inner = _Composer(_ALL_ORDERS, NeighboringRelation[relation.name])

    def supports(self, event: PrivacyEvent) -> bool:
        """Return whether this is a Gaussian, or counts, under add-or-remove-one.

        Replace-one is refused altogether: dp-accounting's RDP charges a Gaussian there
        for a shift of one clip norm where its PLD charges two (PRIVACY.md section 6).
        """
        return self._relation is Relation.ADD_OR_REMOVE_ONE and (
            event.is_gaussian() or event.is_discrete() or event.is_counts()
        )

    def compose(self, event: PrivacyEvent) -> None:
        """Add one event.

        Raises
        ------
        ConfigurationError
            If the event is not supported; nothing was added.
        """
        self._inner.compose(self._translated(event))

    def compose_search(self, search: Search) -> None:
        """Add one hyper-parameter search (arXiv 2110.03620, Theorems 2 and 6).

        Raises
        ------
        ConfigurationError
            If one of its events is not supported, or its law is none; nothing was
            added.
        """
        if not (search.run and search.mean >= 1 and search.shape >= 0):
            raise ConfigurationError(
                f"search over {len(search.run)} events, mean={search.mean}, "
                f"shape={search.shape}: needs an event, a mean of at least 1 and a "
                "shape of at least 0"
            )
        run = ComposedDpEvent([self._translated(event) for event in search.run])
        self._inner.compose(RepeatAndSelectDpEvent(run, search.mean, search.shape))

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
                f"accounting=rdp cannot value these events: {failure}"
            ) from failure
        if math.isnan(epsilon):
            raise ConfigurationError("accounting=rdp returned NaN; raise the noise")
        return epsilon

    def _translated(self, event: PrivacyEvent) -> DpEvent:
        if not self.supports(event):
            raise ConfigurationError(
                f"accounting=rdp does not know {event} under {self._relation}; refused"
            )
        step: DpEvent = _DiscreteStep(event)
        if event.is_counts():
            # a/2z^2 at every order: Canonne, Kamath, Steinke 2020, Theorem 4.
            step = GaussianDpEvent(event.noise_multiplier)
        elif event.is_gaussian():
            noise = GaussianDpEvent(event.noise_multiplier)
            step = PoissonSampledDpEvent(event.sample_rate, noise)
        return SelfComposedDpEvent(step, event.steps)


def create(relation: Relation) -> _Rdp:
    """Return an accountant that has spent nothing under `relation`."""
    return _Rdp(relation)
