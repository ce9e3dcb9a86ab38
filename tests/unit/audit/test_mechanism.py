"""Tier 2 through the encryption: honest noise within its claim, each fault beyond."""

import pytest

from fedsecure.audit.finding import Tier, Verdict
from fedsecure.audit.mechanism import LEAST_SHARE, mechanism
from fedsecure.audit.programme import PLAN
from fedsecure.audit.randomness import Meter
from fedsecure.privacy.gradients import bookkeeping
from fedsecure.privacy.mechanism import DiscreteGaussian, clip_factors
from fedsecure.update import Vector
from tests.fakes import faults
from tests.fakes.randomness import Stream

CIPHERTEXTS = 8
"""65,520 trials a world."""


def audited(seed: str = "trials") -> Tier:
    return mechanism(PLAN, CIPHERTEXTS, Meter(Stream(seed)))


def clipped_too_late(norms: Vector, clip_norm: float) -> Vector:
    return clip_factors(norms, 1.25 * clip_norm)


@pytest.fixture(scope="module")
def honest() -> Tier:
    return audited()


def test_an_honest_sum_proves_nine_tenths_of_its_claim_and_no_more(
    honest: Tier,
) -> None:
    shares = honest.figures["bound_over_claim"]
    assert isinstance(shares, list)
    assert all(LEAST_SHARE <= float(str(share)) <= 1 for share in shares)
    assert [c.verdict for c in honest.checks[1:]] == [Verdict.PASSED] * 2


def test_there_are_as_many_trials_as_fields(honest: Tier) -> None:
    assert honest.figures["trials_a_world"] == 65_520


def test_what_is_enforced_is_more_than_what_is_claimed_here(honest: Tier) -> None:
    assert 4.377 < float(str(honest.figures["enforced_epsilon"])) < 4.9


@pytest.mark.parametrize(
    ("fault", "low", "high"),
    [(faults.HalfNoise, 9.0, 10.1), (faults.LostShare, 4.6, 5.2)],
)
def test_noise_that_lacks_is_found(
    fault: type[DiscreteGaussian],
    low: float,
    high: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*faults.plant(fault))
    check = audited().checks[1]
    assert check.verdict is Verdict.FAILED
    assert low < check.value < high


def test_a_clip_a_quarter_too_wide_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeping, "clip_factors", clipped_too_late)
    check = audited().checks[1]
    assert check.verdict is Verdict.FAILED
    assert 5.2 < check.value < 5.6


def test_examples_that_do_nothing_are_inconclusive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        bookkeeping,
        "clip_factors",
        lambda norms, clip: 1e-6 * clip_factors(norms, clip),
    )
    assert audited().checks[1].verdict is Verdict.INCONCLUSIVE
