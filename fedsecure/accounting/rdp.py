"""Renyi differential privacy: the cheap guard before each reservation.

Moments of the sampled Gaussian (Mironov, Talwar, Zhang 2019) with the conversion of
Canonne, Kamath, Steinke 2020, Prop. 12, by dp-accounting. Never below `pld`, so its yes
is safe; its no is a reason to ask `pld`.
"""

import math

from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.rdp import RdpAccountant

from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.errors import ConfigurationError

_KIND = "poisson_gaussian"


class _Rdp:
    """An accountant over Renyi divergences; see `create`."""

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._inner = RdpAccountant(
            neighboring_relation=NeighboringRelation[relation.name]
        )

    def supports(self, event: PrivacyEvent) -> bool:
        """Return whether this is a Poisson-sampled Gaussian under add-or-remove-one.

        Replace-one is refused altogether: dp-accounting's RDP charges a Gaussian there
        for a shift of one clip norm where its PLD charges two (PRIVACY.md section 6).
        """
        return (
            self._relation is Relation.ADD_OR_REMOVE_ONE
            and event.kind == _KIND
            and math.isfinite(event.noise_multiplier)
            and event.noise_multiplier > 0
            and 0 < event.sample_rate <= 1
            and event.steps >= 1
        )

    def compose(self, event: PrivacyEvent) -> None:
        """Add one event.

        Raises
        ------
        ConfigurationError
            If the event is not supported; nothing was added.
        """
        if not self.supports(event):
            raise ConfigurationError(
                f"accounting=rdp does not know {event} under {self._relation}; refused"
            )
        step = PoissonSampledDpEvent(
            event.sample_rate, GaussianDpEvent(event.noise_multiplier)
        )
        self._inner.compose(SelfComposedDpEvent(step, event.steps))

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


def create(relation: Relation) -> _Rdp:
    """Return an accountant that has spent nothing under `relation`."""
    return _Rdp(relation)
