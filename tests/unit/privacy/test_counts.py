"""Counts with noise: what leaves, how it is spread, and what a row changes."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from fedsecure.accounting import COUNTS, PrivacyEvent
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.counts import CountsPlan, counted, counts_of, require_rows
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import JSON, IntVector
from tests.fakes.certified import LOCAL, SHARED
from tests.fakes.randomness import Stream, System

PLAN = CountsPlan(8.0, each_round=False)
TOLD = {"num_test": 72.0, "accuracy": 66 / 72, "loss": 0.4}


# --- the section ----------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1.999, -3.0, math.nan, math.inf, 65537.0])
def test_noise_that_is_not_drawn_is_refused(noise: float) -> None:
    with pytest.raises(ConfigurationError, match="must be from 2 to 65536 rows"):
        CountsPlan(noise, each_round=False)


def test_a_document_is_read_as_it_was_written() -> None:
    for plan in (PLAN, CountsPlan(2.0, each_round=True)):
        assert CountsPlan.from_document(plan.document()) == plan


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "needs exactly"),
        ("dp", "needs exactly"),
        ({}, "needs exactly"),
        ({"noise_multiplier": 8.0}, "needs exactly"),
        ({"noise_multiplier": 8.0, "each_round": False, "loss": 1}, "needs exactly"),
        ({"noise_multiplier": "8", "each_round": False}, "noise_multiplier='8'"),
        ({"noise_multiplier": True, "each_round": False}, "noise_multiplier=True"),
        ({"noise_multiplier": 8.0, "each_round": 1}, "each_round=1"),
    ],
)
def test_a_section_that_is_none_is_refused(document: JSON, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CountsPlan.from_document(document)


def test_counts_are_told_once_or_with_every_round_and_at_the_end() -> None:
    assert PLAN.releases(16) == 1
    assert replace(PLAN, each_round=True).releases(16) == 17


def test_the_event_is_one_of_its_own_with_sensitivity_one() -> None:
    assert PLAN.event(3) == PrivacyEvent(COUNTS, 8.0, 1.0, 3)
    assert PLAN.event().is_counts()


# --- the plan around it ---------------------------------------------------------------


def test_counts_are_none_unless_metrics_are_dp() -> None:
    assert counts_of({"metrics": "plain"}, LOCAL) is None
    section = PLAN.document()
    assert counts_of({"metrics": "dp", "counts": section}, LOCAL) == PLAN


def test_a_section_that_does_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="does nothing with metrics='none'"):
        counts_of({"metrics": "none", "counts": PLAN.document()}, LOCAL)


def test_without_privacy_there_is_no_budget_for_counts() -> None:
    with pytest.raises(ConfigurationError, match="no budget pays for counts"):
        counts_of({"metrics": "dp", "counts": PLAN.document()}, None)


@pytest.mark.parametrize("mode", [Mode.USER_DISTRIBUTED, Mode.SILO])
def test_units_of_several_rows_are_refused(mode: Mode) -> None:
    with pytest.raises(ConfigurationError, match=f"metrics=dp in mode {mode}"):
        require_rows(replace(SHARED, mode=mode))


@pytest.mark.parametrize("privacy", [LOCAL, SHARED])
def test_units_of_one_row_are_hidden(privacy: PrivacyPlan) -> None:
    require_rows(privacy)


# --- counts ---------------------------------------------------------------------------


def test_counts_are_right_and_wrong_rows() -> None:
    assert counted(TOLD) == (66, 6)


def test_no_test_rows_are_two_zeros_and_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert counted({"num_test": 0.0}) == (0, 0)
    assert caplog.records == []


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"accuracy": 0.5},
        {"num_test": 10.0},
        {"num_test": 10.5, "accuracy": 0.5},
        {"num_test": -1.0, "accuracy": 0.5},
        {"num_test": math.nan, "accuracy": 0.5},
        {"num_test": math.inf, "accuracy": 0.5},
        {"num_test": 10.0, "accuracy": math.nan},
        {"num_test": 10.0, "accuracy": 1.5},
        {"num_test": 10.0, "accuracy": -0.1},
    ],
)
def test_what_is_no_count_counts_no_row_and_stops_nothing(
    told: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert counted(told) == (0, 0)
    assert "no row is counted" in caplog.text


_ROWS = st.lists(st.booleans(), max_size=400)


@given(_ROWS, st.booleans())
def test_a_row_that_comes_or_goes_changes_one_count_by_one(
    right: list[bool], new: bool
) -> None:
    def of(rows: list[bool]) -> IntVector:
        told = {"num_test": float(len(rows))}
        if rows:
            told["accuracy"] = float(np.mean(np.array(rows, dtype=np.float64)))
        return np.array(counted(told))

    change = of([*right, new]) - of(right)
    assert sorted(np.abs(change)) == [0, 1]


# --- what leaves ----------------------------------------------------------------------


def test_two_noisy_counts_and_their_noise_are_all_that_leaves() -> None:
    left = PLAN.release({**TOLD, "saturated": 5.0, "mse": 1.0}, Stream("a"))
    assert set(left) == {"noisy_correct", "noisy_wrong", "noise"}
    assert all(type(left[k]) is int for k in ("noisy_correct", "noisy_wrong"))


def test_each_call_draws_anew() -> None:
    source = Stream("a")
    assert PLAN.release(TOLD, source) != PLAN.release(TOLD, source)


def drawn(plan: CountsPlan, source: System, times: int) -> IntVector:
    """Return both counts of so many releases; shape (times, 2)."""
    left = [plan.release(TOLD, source) for _ in range(times)]
    names = ("noisy_correct", "noisy_wrong")
    return np.array([[int(str(told[name])) for name in names] for told in left])


@pytest.mark.parametrize("sigma", [2.0, 5.5])
def test_released_counts_are_spread_as_the_event_says(sigma: float) -> None:
    # Both counts together against the exact law, at 99.99%.
    plan, draws = CountsPlan(sigma, each_round=False), 6000
    source = System()
    left = [plan.release(TOLD, source) for _ in range(draws)]
    noise = np.array(
        [
            (int(str(x["noisy_correct"])) - 66, int(str(x["noisy_wrong"])) - 6)
            for x in left
        ]
    )
    edge = math.ceil(3 * sigma)
    ks = np.arange(-12 * edge, 12 * edge + 1)
    weight = np.exp(-(ks**2) / (2 * sigma**2))
    law = weight / weight.sum()
    inner = np.abs(ks) < edge
    expected = np.append(law[inner], law[~inner].sum()) * 2 * draws
    cells = [np.count_nonzero(noise == k) for k in ks[inner]]
    seen = np.append(cells, np.count_nonzero(np.abs(noise) >= edge))
    statistic = float(((seen - expected) ** 2 / expected).sum())
    assert statistic < chi2.ppf(0.9999, len(seen) - 1)


def test_noise_of_the_two_counts_is_not_shared() -> None:
    source, draws = System(), 4000
    left = [PLAN.release(TOLD, source) for _ in range(draws)]
    pairs = np.array(
        [(float(str(x["noisy_correct"])), float(str(x["noisy_wrong"]))) for x in left]
    )
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / math.sqrt(draws)
