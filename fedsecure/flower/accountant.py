"""Flower's PrivacyAccountant, valued by an accountant of this house.

For a user's own Flower strategy (`DifferentialPrivacyServerSideFixedClipping` and its
like), which names no accountant but Flower's own. It is no ledger: what it spent is
forgotten with the process unless the strategy keeps `state_dict`.
"""

import math
from collections.abc import Mapping

from flwr.serverapp import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    PrivacySpent,
    SamplingMethod,
)

from fedsecure.accounting import GAUSSIAN, Accountant, PrivacyEvent, Relation, composed
from fedsecure.errors import ConfigurationError

FORMAT = 1
_Releases = list[tuple[GaussianPrivacyEvent, int]]


class FlowerAccountant:
    """Satisfies `flwr.serverapp.PrivacyAccountant`.

    Parameters
    ----------
    config : PrivacyConfig
        Add-or-remove-one, by Poisson sampling or without amplification.
    name : str
        The accountant, from `registry.names("accounting")`.

    Raises
    ------
    ConfigurationError
        For sampling without replacement: no accountant of this house knows it.
    """

    def __init__(self, config: PrivacyConfig, name: str = "pld") -> None:
        if config.neighboring_relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
            raise ConfigurationError(
                f"sampling_method={config.sampling_method.value} under "
                f"{config.neighboring_relation.value} is not known here; use "
                "poisson or no-amplification under add-or-remove-one, or Flower's "
                "own RdpAccountant"
            )
        self._config, self._name = config, name
        self._releases: _Releases = []

    @property
    def config(self) -> PrivacyConfig:
        """Return what it was made with."""
        return self._config

    @property
    def num_releases(self) -> int:
        """Return how many releases were composed."""
        return sum(count for _, count in self._releases)

    def compose(self, event: GaussianPrivacyEvent, count: int = 1) -> None:
        """Add `count` equal releases.

        Raises
        ------
        ConfigurationError
            If the event is of another population, or the count is not positive.
        """
        self._event(event, count)
        self._releases.append((event, count))

    def get_epsilon(self, delta: float) -> float:
        """Return epsilon at `delta` for all releases.

        Raises
        ------
        ConfigurationError
            If delta is not strictly between 0 and 1.
        """
        return self._spent(self._releases).epsilon(delta)

    def get_delta(self, epsilon: float) -> float:
        """Return a delta at which epsilon is kept, at most 1% above the least one.

        Raises
        ------
        ConfigurationError
            If epsilon is negative or not finite.
        """
        if not (math.isfinite(epsilon) and epsilon >= 0):
            raise ConfigurationError(f"epsilon={epsilon}, must be 0 or above")
        spent = self._spent(self._releases)
        low, high = math.log(1e-30), math.log1p(-1e-9)
        if spent.epsilon(math.exp(low)) <= epsilon:
            return math.exp(low)
        if spent.epsilon(math.exp(high)) > epsilon:
            return 1.0
        while high - low > 0.01:
            middle = (low + high) / 2
            kept = spent.epsilon(math.exp(middle)) <= epsilon
            low, high = (low, middle) if kept else (middle, high)
        return math.exp(high)

    def get_privacy_spent(self, delta: float | None = None) -> PrivacySpent:
        """Return what was spent; the method names the accountant and the relation."""
        chosen = self._config.target_delta if delta is None else delta
        return PrivacySpent(
            epsilon=self.get_epsilon(chosen),
            delta=chosen,
            num_releases=self.num_releases,
            accounting_method=f"{self._name}, {Relation.ADD_OR_REMOVE_ONE}",
        )

    def would_exceed(
        self,
        event: GaussianPrivacyEvent,
        max_epsilon: float | None = None,
        count: int = 1,
    ) -> bool:
        """Return whether `count` more releases would pass the limit; adds nothing.

        Raises
        ------
        ConfigurationError
            If neither the call nor the configuration has a limit.
        """
        limit = self._config.max_epsilon if max_epsilon is None else max_epsilon
        if limit is None or not (math.isfinite(limit) and limit > 0):
            raise ConfigurationError(
                f"max_epsilon={limit}: give a positive one here or in PrivacyConfig"
            )
        after = [*self._releases, (event, count)]
        return self._spent(after).epsilon(self._config.target_delta) > limit

    def state_dict(self) -> dict[str, object]:
        """Return the releases as plain JSON values."""
        return {
            "format": FORMAT,
            "accountant": self._name,
            "config": self._fixed(),
            "releases": [
                [e.noise_multiplier, e.sample_size, count]
                for e, count in self._releases
            ],
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over what `state_dict` returned; on an error nothing is changed.

        Raises
        ------
        ConfigurationError
            If the state is of another format, accountant or configuration, or
            cannot be read.
        """
        expected = {
            "format": FORMAT,
            "accountant": self._name,
            "config": self._fixed(),
        }
        for key, value in expected.items():
            if state.get(key) != value:
                found = state.get(key)
                raise ConfigurationError(
                    f"accountant state: {key}={found!r}, this one has {value!r}"
                )
        self._releases = self._read(state.get("releases"))

    def _fixed(self) -> Mapping[str, object]:
        c = self._config
        return {
            "target_delta": c.target_delta,
            "population_size": c.population_size,
            "neighboring_relation": c.neighboring_relation.value,
            "sampling_method": c.sampling_method.value,
            "max_epsilon": c.max_epsilon,
        }

    def _read(self, listed: object) -> _Releases:
        try:
            releases = [
                (GaussianPrivacyEvent(z, size, self._config.population_size), count)
                for z, size, count in listed  # type: ignore[attr-defined]
            ]
            for event, count in releases:
                self._event(event, count)
        except (TypeError, ValueError) as bad:
            raise ConfigurationError(
                f"accountant state: releases cannot be read: {bad}"
            ) from bad
        return releases

    def _spent(self, releases: _Releases) -> Accountant:
        events = [self._event(event, count) for event, count in releases]
        return composed(self._name, Relation.ADD_OR_REMOVE_ONE, events)

    def _event(self, event: GaussianPrivacyEvent, count: int) -> PrivacyEvent:
        population = self._config.population_size
        if event.population_size != population:
            raise ConfigurationError(
                f"event with population_size={event.population_size}, the "
                f"configuration has {population}"
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigurationError(f"count={count!r}, must be a whole number above 0")
        rate = 1.0
        if self._config.sampling_method is SamplingMethod.POISSON:
            rate = event.sample_size / population
        return PrivacyEvent(GAUSSIAN, event.noise_multiplier, rate, count)
