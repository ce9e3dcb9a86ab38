"""One example's picture: exact from its gradient, gone with noise."""

import numpy as np
import pytest

from fedsecure.audit import inversion as tier3
from fedsecure.audit.finding import Tier, Verdict
from fedsecure.audit.inversion import inversion, inverted, peak_signal
from fedsecure.audit.programme import PLAN
from fedsecure.audit.randomness import Meter
from fedsecure.privacy.mechanism import DiscreteGaussian, RandomSource
from fedsecure.update import IntVector, Layout
from tests.fakes import faults
from tests.fakes.randomness import Stream

LAYOUT = Layout(("w", "b", "head"), ((3, 4), (3,), (2,)))


class NoNoise(DiscreteGaussian):
    def draw(self, n: int, source: RandomSource) -> IntVector:
        return 0 * super().draw(n, source)


@pytest.fixture(scope="module")
def tier() -> Tier:
    return inversion(PLAN, Meter(Stream("noise")))


def test_an_outer_product_is_divided_exactly() -> None:
    x, g = np.array([0.1, 0.0, 0.7, 1.0]), np.array([0.5, -2.0, 1.5])
    gradient = np.concatenate([np.outer(g, x).ravel(), g, [9.0, 9.0]])
    assert inverted(-3 * gradient, LAYOUT) == pytest.approx(x)


def test_a_gradient_of_zeros_is_no_error() -> None:
    assert np.array_equal(inverted(np.zeros(17), LAYOUT), np.zeros(4))


def test_peak_signal_counts_decibel() -> None:
    truth = np.zeros((2, 4))
    assert peak_signal(truth, truth + 0.1) == pytest.approx(20)
    assert peak_signal(truth, truth) == 400


def test_the_audit_copies_every_digit_without_noise_and_none_with_it(
    tier: Tier,
) -> None:
    assert tier.verdict is Verdict.PASSED
    for label in ("an update as it is", "encrypted, no noise"):
        found = tier.figures[label]
        assert isinstance(found, dict)
        assert found["identified"] == 10


def test_the_picture_is_drawn(tier: Tier) -> None:
    assert tier.pictures[0].png.startswith(b"\x89PNG")


def test_noise_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*faults.plant(NoNoise))
    monkeypatch.setattr(tier3, "LEVELS", (1.0,))
    found = inversion(PLAN, Meter(Stream("noise")))
    assert found.checks[1].verdict is Verdict.FAILED
    assert found.checks[1].value > 60
