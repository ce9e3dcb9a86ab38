"""A generator is known by its type and by the bytes it gives."""

import numpy as np
import pytest

from fedsecure.audit.finding import Verdict
from fedsecure.audit.randomness import Meter, Provenance
from fedsecure.learning.training import SystemRandom
from fedsecure.privacy.mechanism import DiscreteGaussian, RandomSource
from tests.fakes.randomness import Stream, System


class Kin(SystemRandom):
    """A kin of the system's generator may do anything."""


def seen(source: RandomSource, draws: int = 100) -> tuple[Verdict, str]:
    meter = Meter(source)
    provenance = Provenance(meter)
    provenance.saw(DiscreteGaussian(4.0).draw(draws, meter))
    check = provenance.check()
    return check.verdict, check.said


def test_the_system_generator_passes() -> None:
    assert seen(SystemRandom())[0] is Verdict.PASSED


@pytest.mark.parametrize("source", [Stream("seed"), System(), Kin()])
def test_any_other_type_is_a_simulation(source: RandomSource) -> None:
    verdict, said = seen(source)
    assert verdict is Verdict.FAILED
    assert f"{type(source).__name__}: simulation, epsilon void" in said


def test_noise_that_took_no_bytes_was_made_elsewhere() -> None:
    provenance = Provenance(Meter(SystemRandom()))
    provenance.saw(np.ones(10, np.int64))
    assert "made elsewhere" in provenance.check().said


def test_bytes_given_before_do_not_count() -> None:
    meter = Meter(SystemRandom())
    meter.bytes(1000)
    provenance = Provenance(meter)
    provenance.saw(np.ones(10, np.int64))
    assert provenance.check().verdict is Verdict.FAILED


def test_floats_are_found_even_where_they_are_whole() -> None:
    meter = Meter(SystemRandom())
    provenance = Provenance(meter)
    provenance.saw(DiscreteGaussian(4.0).draw(10, meter).astype(np.float64))
    assert "not of integers" in provenance.check().said


def test_a_meter_passes_bytes_on() -> None:
    meter = Meter(Stream("a"))
    assert meter.bytes(5) == Stream("a").bytes(5)
    assert meter.given == 5
