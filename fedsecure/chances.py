"""Chances that rounding draws: a value's own, in whatever order values are rounded.

With privacy off only; no claim of privacy rests on them (`quantiser`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fedsecure.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Chances:
    """A generator that stands before any value it is asked for.

    Attributes
    ----------
    rng : Generator or None
        None: values are rounded to the nearest step.
    state : mapping or None
        Where it stood before the first value; None: values are asked for in order, and
        it stands there by itself.
    """

    rng: np.random.Generator | None
    state: Mapping[str, Any] | None

    @classmethod
    def of(cls, rng: np.random.Generator | None, *, in_order: bool) -> "Chances":
        """Return the chances of one update, from a generator that drew nothing yet.

        Raises
        ------
        ConfigurationError
            Not in order, with a generator that cannot be moved.
        """
        if rng is None or in_order:
            return cls(rng, None)
        bits = rng.bit_generator
        if not isinstance(bits, np.random.PCG64):
            raise ConfigurationError(
                f"rounding out of order needs PCG64, not {type(bits).__name__}"
            )
        return cls(rng, dict(bits.state))

    def at(self, start: int) -> np.random.Generator | None:
        """Return the generator, placed before the value at `start`."""
        if self.rng is None or self.state is None:
            return self.rng
        bits = np.random.PCG64()
        bits.state = cast("Any", dict(self.state))
        bits.advance(start)  # one step a value: `Generator.random` of float64
        return np.random.Generator(bits)
