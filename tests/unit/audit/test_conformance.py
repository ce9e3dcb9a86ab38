"""Tier 1 on honest noise, and on every fault that it is there to find."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fedsecure.audit.conformance import (
    conformance,
    largest_correlation,
    variance_z,
)
from fedsecure.audit.finding import Check, Tier, Verdict
from fedsecure.audit.programme import PLAN
from fedsecure.audit.randomness import Meter
from fedsecure.errors import NotFinite
from fedsecure.learning.training import SystemRandom
from fedsecure.privacy.mechanism import DiscreteGaussian
from tests.fakes import faults
from tests.fakes.randomness import Stream

DIMENSION = 8190


def audited(seed: str = "noise") -> dict[str, Check]:
    tier = conformance(PLAN, DIMENSION, Meter(Stream(seed)))
    return {check.name: check for check in tier.checks}


@pytest.fixture(scope="module")
def honest() -> Tier:
    return conformance(PLAN, DIMENSION, Meter(Stream("noise")))


def failed(found: dict[str, Check]) -> set[str]:
    """Return what failed beside the generator: a test's is never the system's."""
    return {n for n, c in found.items() if c.verdict is not Verdict.PASSED} - {
        "generator"
    }


def test_honest_noise_passes(honest: Tier) -> None:
    assert failed({check.name: check for check in honest.checks}) == set()


def test_at_least_ten_thousand_coordinates_are_looked_at(honest: Tier) -> None:
    assert honest.figures["coordinates"] == 4 * DIMENSION


def test_rounds_of_a_small_model_are_pooled() -> None:
    tier = conformance(replace(PLAN, rounds=47), 650, Meter(Stream("small")))
    assert tier.figures["rounds"] == 47
    assert failed({check.name: check for check in tier.checks}) == set()


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            faults.HalfNoise,
            {"variance of the sum", "variance of each share", "shape of the sum"},
        ),
        (
            faults.LostShare,
            {"variance of the sum", "variance of each share", "shape of the sum"},
        ),
        (faults.ReusedInTheNextRound, {"noise is fresh in every round"}),
    ],
)
def test_a_planted_fault_is_found(
    fault: type[DiscreteGaussian], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*faults.plant(fault))
    assert failed(audited()) == found


def test_noise_that_two_sites_share_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*faults.plant(faults.ReusedByANeighbour))
    found = audited()
    assert found["sites' noise is unrelated"].value == pytest.approx(1)
    assert "sites' noise is unrelated" in failed(found)


def test_a_lost_share_is_far_outside_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*faults.plant(faults.LostShare))
    found = audited()
    assert found["variance of the sum"].value < -20
    assert "site-2" in found["variance of each share"].said


@pytest.mark.parametrize("fault", [faults.RoundedFloats, faults.WholeFloats])
def test_a_float_generator_is_found_by_type(
    fault: type[DiscreteGaussian], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*faults.plant(fault))
    check = conformance(PLAN, DIMENSION, Meter(SystemRandom())).checks[0]
    assert check.verdict is Verdict.FAILED


def test_floats_off_the_grid_are_refused_before_they_are_encrypted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*faults.plant(faults.Floats))
    with pytest.raises(NotFinite, match="not on the integer grid"):
        audited()


def test_the_system_generator_passes() -> None:
    check = conformance(PLAN, DIMENSION, Meter(SystemRandom())).checks[0]
    assert check.verdict is Verdict.PASSED


def test_a_seeded_source_fails_as_simulation(honest: Tier) -> None:
    assert honest.checks[0].verdict is Verdict.FAILED
    assert "Stream: simulation, epsilon void" in honest.checks[0].said


def test_a_variance_is_judged_by_its_deviation() -> None:
    values = np.array([2, -2, 2, -2] * 100)
    assert variance_z(values, 2.0) == (1.0, 0.0)
    ratio, z = variance_z(values, math.sqrt(2.0))
    assert ratio == pytest.approx(2)
    assert z == pytest.approx(math.sqrt(200))


def test_a_row_is_not_held_against_itself_and_a_constant_one_correlates_with_none() -> (
    None
):
    rows = np.array([[1.0, -1, 1, -1], [0, 0, 0, 0], [1, 1, -1, -1]])
    assert largest_correlation(rows, rows, same=True) == pytest.approx(0)
    assert largest_correlation(rows, rows, same=False) == pytest.approx(1)
