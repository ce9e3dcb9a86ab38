"""The grid of shared noise: it fits its fields, and its noise is the noise promised."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.accounting import DISCRETE
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.lattice import CLAMP, Lattice
from fedsecure.privacy.mechanism import MAX_SIGMA
from fedsecure.privacy.plan import Mode, PrivacyPlan
from tests.fakes.randomness import Stream

PLAN = PrivacyPlan(
    Mode.EXAMPLE_DISTRIBUTED,
    clip_norm=2.0,
    noise_multiplier=4.0,
    sample_rate=1.0,
    steps_per_round=1,
    rounds=40,
    delta=1e-5,
    divisor=1400.0,
    min_contributors=5,
    max_colluders=1,
)


def grid(
    dimension: int = 650, bits: int = 24, sites: int = 5, **changes: float
) -> Lattice:
    return Lattice.of(replace(PLAN, **changes), dimension, bits, sites)  # type: ignore[arg-type]


@given(
    z=st.floats(0.3, 60),
    clip=st.floats(1e-3, 1e3),
    sites=st.integers(5, 93),
    dimension=st.integers(1, 10**7),
    bits=st.sampled_from([24, 48]),
)
def test_all_sites_at_their_clamp_and_nine_deviations_fit_the_field(
    z: float, clip: float, sites: int, dimension: int, bits: int
) -> None:
    try:
        found = grid(dimension, bits, sites, noise_multiplier=z, clip_norm=clip)
    except ConfigurationError:
        return
    spread = found.share_sigma * math.sqrt(sites)
    assert sites * found.clamp + 9 * spread <= 2 ** (bits - 1) - 1
    assert 2 <= found.share_sigma <= MAX_SIGMA * (1 + 1e-12)
    assert found.inflation() <= 1 + 1e-9


def test_shares_counted_on_add_up_to_the_noise_promised() -> None:
    found = grid()
    together = found.share_sigma * math.sqrt(PLAN.shares)
    assert together / found.sensitivity == pytest.approx(PLAN.noise_multiplier)


def test_rounding_is_in_the_sensitivity() -> None:
    found = grid()
    assert found.sensitivity >= found.steps * PLAN.clip_norm + math.sqrt(650)


def test_a_wide_field_rounds_for_one_percent() -> None:
    assert grid(bits=48).inflation() == pytest.approx(0.01, rel=1e-6)


def test_parameters_that_do_not_fit_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="profile=wide"):
        grid(10**7, bits=24, sites=93, noise_multiplier=60.0)


def test_the_event_counts_shares_and_names_the_grid() -> None:
    found = grid()
    event = found.event(PLAN, 3)
    assert (event.kind, event.steps, event.counted_shares) == (DISCRETE, 3, 4)
    assert event.sensitivity() == pytest.approx(found.sensitivity)


def test_a_contribution_is_the_rounded_sum_and_noise_of_one_share() -> None:
    found, total = grid(20_000), np.linspace(-1, 1, 20_000)
    whole, clamped = found.contribute(total, Stream("noise"))
    noise = whole - np.rint(total * found.steps)
    assert clamped == 0
    assert noise.mean() == pytest.approx(
        0, abs=5 * found.share_sigma / math.sqrt(20_000)
    )
    assert noise.std() == pytest.approx(found.share_sigma, rel=0.03)


def test_coordinates_are_clamped_before_the_noise_and_counted() -> None:
    found = grid(4)
    far = np.array([0.0, 2 * CLAMP * PLAN.clip_norm, -1e9, 1.0])
    whole, clamped = found.contribute(far, Stream("noise"))
    assert clamped == 2
    assert np.abs(whole).max() <= found.clamp + 14 * found.share_sigma


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sum_that_is_not_finite_does_not_leave(bad: float) -> None:
    with pytest.raises(ConfigurationError, match="NaN or Inf"):
        grid(2).contribute(np.array([0.0, bad]), Stream("noise"))


def test_a_sum_of_another_length_does_not_leave() -> None:
    with pytest.raises(ConfigurationError, match="the grid is for"):
        grid(3).contribute(np.zeros(2), Stream("noise"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_colluders": 0}, "at least 1"),
        ({"max_colluders": 5}, "no share of noise"),
        ({"min_contributors": 1}, "no share of noise"),
        ({"steps_per_round": 2}, "must be 1"),
        ({"mode": Mode.SILO, "sample_rate": 0.5}, "must be 1 in silo"),
        ({"mode": Mode.EXAMPLE_LOCAL}, "does nothing in privacy mode"),
    ],
)
def test_a_plan_that_would_promise_too_much_is_refused(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        replace(PLAN, **changes)  # type: ignore[arg-type]
