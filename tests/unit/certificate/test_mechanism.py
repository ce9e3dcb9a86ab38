"""Figures of the noise: grid, clamp, draws and what they cost of delta."""

import math
from dataclasses import replace

import pytest

from fedsecure.certificate.mechanism import mechanism
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import DiscreteGaussian
from tests.fakes.certified import LOCAL, SHARED, plan

ENCRYPTION = plan()["encryption"]


def test_the_grid_is_the_one_that_sites_share() -> None:
    found = mechanism(SHARED, ENCRYPTION, 3, 650, 4, 3.0)
    grid = Lattice.of(SHARED, 650, 24, 3)
    assert found["clamp"] == grid.clamp
    assert found["inflation"] == grid.inflation()
    assert found["sigma_in_steps"] == grid.share_sigma


def test_all_sites_draws_are_charged_to_delta() -> None:
    found = mechanism(SHARED, ENCRYPTION, 3, 650, 4, 3.0)
    distance = DiscreteGaussian(Lattice.of(SHARED, 650, 24, 3).share_sigma).distance
    assert found["draws"] == 4 * 650 * 3
    expected = (1 + math.exp(3.0)) * 4 * 650 * 3 * distance
    assert found["charged_to_delta"] == pytest.approx(expected)


def test_a_draw_is_closer_than_two_to_the_minus_100() -> None:
    found = mechanism(SHARED, ENCRYPTION, 3, 650, 4, 3.0)
    assert float(str(found["distance_per_draw_log2"])) < -100


def test_local_noise_has_a_grid_of_its_own_and_no_clamp() -> None:
    found = mechanism(LOCAL, ENCRYPTION, 3, 650, 8, 3.0)
    assert found["clamp"] is None
    assert 0 < float(str(found["inflation"])) <= 0.02


def test_more_noise_is_more_steps_of_the_grid() -> None:
    less = mechanism(SHARED, ENCRYPTION, 3, 650, 4, 3.0)["sigma_in_steps"]
    wide = replace(SHARED, noise_multiplier=6.0)
    more = mechanism(wide, ENCRYPTION, 3, 650, 4, 3.0)["sigma_in_steps"]
    assert float(str(more)) == pytest.approx(2 * float(str(less)))
