"""Faults of the mechanism, planted where noise is drawn; none is a setting anywhere."""

import numpy as np

from fedsecure.privacy import lattice
from fedsecure.privacy.mechanism import DiscreteGaussian, RandomSource
from fedsecure.update import IntVector


class HalfNoise(DiscreteGaussian):
    """Half the standard deviation."""

    def __init__(self, sigma: float) -> None:
        super().__init__(sigma / 2)


class Counting(DiscreteGaussian):
    """Knows which site's turn it is: sites draw one after the other."""

    turn, sites = 0, 5

    def draw(self, n: int, source: RandomSource) -> IntVector:
        site, number = type(self).turn % self.sites, type(self).turn // self.sites
        type(self).turn += 1
        return self.share(site, number, super().draw(n, source))

    def share(self, site: int, number: int, drawn: IntVector) -> IntVector:
        raise NotImplementedError


class LostShare(Counting):
    """The second site adds nothing."""

    turn = 0

    def share(self, site: int, number: int, drawn: IntVector) -> IntVector:
        return np.zeros_like(drawn) if site == 1 else drawn


class ReusedInTheNextRound(Counting):
    """The third site's noise of the first round is its noise of the second too."""

    turn = 0
    first: IntVector | None = None

    def share(self, site: int, number: int, drawn: IntVector) -> IntVector:
        if site == 2 and number == 0:
            type(self).first = drawn
        if site == 2 and number == 1 and self.first is not None:
            return self.first
        return drawn


class ReusedByANeighbour(Counting):
    """The fourth site adds the third one's noise."""

    turn = 0
    last: IntVector | None = None

    def share(self, site: int, number: int, drawn: IntVector) -> IntVector:
        if site == 3 and self.last is not None:
            return self.last
        type(self).last = drawn
        return drawn


class RoundedFloats(DiscreteGaussian):
    """Floats of numpy's own generator, rounded: of the right width and law."""

    def draw(self, n: int, source: RandomSource) -> IntVector:
        drawn = np.random.default_rng(11).normal(0, self.sigma, n)
        return np.rint(drawn).astype(np.int64)


class WholeFloats(DiscreteGaussian):
    """Whole numbers in floats: the system's bytes are drawn and thrown away."""

    def draw(self, n: int, source: RandomSource) -> IntVector:
        super().draw(n, source)
        drawn = np.random.default_rng(11).normal(0, self.sigma, n)
        return np.rint(drawn)


class Floats(DiscreteGaussian):
    """Floats, as they are; the system's bytes are drawn and thrown away."""

    def draw(self, n: int, source: RandomSource) -> IntVector:
        drawn = super().draw(n, source)
        return drawn + np.random.default_rng(11).uniform(-0.5, 0.5, n)  # type: ignore[return-value]


def plant(fault: type[DiscreteGaussian]) -> tuple[object, str, object]:
    """Return the arguments of ``monkeypatch.setattr`` that plant a fault."""
    if issubclass(fault, Counting):
        fault.turn = 0
    return lattice, "DiscreteGaussian", fault
