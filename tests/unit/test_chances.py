"""A value's own chance, in whatever order values are asked for."""

import numpy as np
import pytest

from fedsecure.chances import Chances
from fedsecure.errors import ConfigurationError


def test_a_value_has_the_same_chance_in_any_order() -> None:
    whole = np.random.default_rng(7).random(100)
    chances = Chances.of(np.random.default_rng(7), in_order=False)
    for start in (60, 0, 99, 25):
        placed = chances.at(start)
        assert placed is not None
        assert placed.random() == whole[start]


def test_in_order_the_generator_is_left_as_it_is() -> None:
    rng = np.random.default_rng(7)
    chances = Chances.of(rng, in_order=True)
    assert chances.at(50) is rng


def test_without_a_generator_there_is_none() -> None:
    assert Chances.of(None, in_order=False).at(3) is None


def test_a_generator_that_cannot_be_moved_is_refused() -> None:
    rng = np.random.Generator(np.random.MT19937(1))
    with pytest.raises(ConfigurationError, match="PCG64, not MT19937"):
        Chances.of(rng, in_order=False)
