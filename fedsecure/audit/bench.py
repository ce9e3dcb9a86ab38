"""A line whose sites share noise: integers in, and the sums an adversary knows out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedsecure.audit.line import Line, plan_of
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import JSON, IntVector

_PLAIN: Mapping[str, JSON] = {"model": {}, "train": {"learning_rate": 1.0}}


class Bench(Line):
    """As many sites as a sum needs: the fewest, so the least noise.

    Parameters
    ----------
    privacy : PrivacyPlan
        Of a mode in which noise is shared.
    dimension : int
        d, parameters of the model.
    settings : mapping, optional
        Sections model and train, where the run trains.

    Attributes
    ----------
    lattice : Lattice

    Raises
    ------
    ConfigurationError
        Another mode, or a grid that does not fit its fields.
    """

    def __init__(
        self,
        privacy: PrivacyPlan,
        dimension: int,
        settings: Mapping[str, JSON] = _PLAIN,
    ) -> None:
        if not privacy.mode.shared:
            raise ConfigurationError(
                f"privacy mode {privacy.mode} shares no noise: there is no sum to audit"
            )
        plan = plan_of(privacy, privacy.min_contributors, settings)
        self.lattice: Lattice = plan.lattice(dimension)
        super().__init__(plan, dimension, replace(plan.wholes(dimension), unit=1.0))

    def send(self, number: int, parts: Sequence[IntVector]) -> "Round":
        """Return a round in which each site sent its integers, one after the other."""
        values = [part.astype(np.float64) for part in parts]
        return Round(self, number, self.encrypted(number, values))


class Round:
    """What the sites of a bench sent in one round, still encrypted."""

    def __init__(self, bench: Bench, number: int, sent: Mapping[str, bytes]) -> None:
        self._bench, self._number, self._sent = bench, number, sent

    def sum(self) -> IntVector:
        """Return the sum of all sites, opened; integers of the grid."""
        return self._opened(self._sent)

    def alone(self, index: int) -> IntVector:
        """Return one site's update, opened: what a run never does."""
        site = self._bench.sites[index]
        return self._opened({site: self._sent[site]})

    def seen(self, colluders: int) -> IntVector:
        """Return the sum as the adversary of the first epsilon knows it.

        The last `colluders` sites tell what they sent, and it is taken off.
        """
        total = self.sum()
        for index in range(len(self._sent) - colluders, len(self._sent)):
            total -= self.alone(index)
        return total

    def _opened(self, sent: Mapping[str, bytes]) -> IntVector:
        return np.rint(self._bench.opened(self._number, sent)).astype(np.int64)
