"""What a data set's events cost together and by run, valued by a row of guards.

Epsilon is recomputed from events each time and never stored as truth, so that a better
accountant re-values history (PRIVACY.md section 8).
"""

from collections.abc import Sequence

from fedsecure.accounting import PrivacyEvent, Relation, grouped
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.charged import comparable
from fedsecure.privacy.plan import AccountantFactory

_Charge = tuple[PrivacyEvent, str]
"""An event and the unit it protects."""


class Spending:
    """Events by run, and what they cost.

    Parameters
    ----------
    dataset : str
        For messages.
    relation : Relation
        What epsilon is about.
    guards : sequence of AccountantFactory
        Upper bounds, the cheapest first.
    """

    def __init__(
        self, dataset: str, relation: Relation, guards: Sequence[AccountantFactory]
    ) -> None:
        self._dataset, self._relation, self._guards = dataset, relation, guards
        self._runs: dict[str, list[_Charge]] = {}

    def add(self, run: str, event: PrivacyEvent, unit: str = "example") -> None:
        """Count an event, and whom it protects; it is never taken away."""
        self._runs.setdefault(run, []).append((event, unit))

    def all_with(
        self,
        *more: PrivacyEvent,
        delta: float,
        enough: float = 0.0,
        unit: str = "example",
    ) -> float:
        """Return epsilon of all runs and `more`, by the first guard that is `enough`.

        Where units differ it is the epsilon of the weakest.

        Parameters
        ----------
        unit : str
            What `more` protects.

        Raises
        ------
        ConfigurationError
            If no guard knows all events.
        """
        charges = [charge for run in self._runs.values() for charge in run]
        return self._value([*charges, *((e, unit) for e in more)], delta, enough)

    def run_with(
        self,
        run: str,
        *more: PrivacyEvent,
        delta: float,
        enough: float = 0.0,
        unit: str = "example",
    ) -> float:
        """Return epsilon of one run and `more`, as `all_with`."""
        charges = [*self._runs.get(run, []), *((e, unit) for e in more)]
        return self._value(charges, delta, enough)

    def by_run(self, delta: float) -> dict[str, float]:
        """Return each run's epsilon alone; they do not add up to that of all."""
        return {run: self.run_with(run, delta=delta) for run in self._runs}

    def _value(self, charges: Sequence[_Charge], delta: float, enough: float) -> float:
        merged = grouped(comparable(charges))
        values: list[float] = []
        for factory in self._guards:
            accountant = factory(self._relation)
            if not all(accountant.supports(event) for event in merged):
                continue
            for event in merged:
                accountant.compose(event)
            values.append(accountant.epsilon(delta) if merged else 0.0)
            if values[-1] <= enough:
                break
        if not values:
            raise ConfigurationError(
                f"no accountant knows all events of data set {self._dataset!r} under "
                f"{self._relation}; nothing was reserved"
            )
        return min(values)
