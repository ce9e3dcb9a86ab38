"""Where a run is designed: what a configuration's patterns have to fit."""

from collections.abc import Sequence
from functools import cache

import pytest

from fedsecure.accounting import (
    LEAST_COUNT_NOISE,
    Relation,
    enforced_with,
    guarantee,
)
from fedsecure.config import RunConfig
from fedsecure.errors import ConfigurationError
from fedsecure.learning.datasets import SiteData, load_site
from fedsecure.planning import (
    counts_plan,
    encryption_section,
    private_plan,
    whole_run,
)
from fedsecure.update import JSON


def config(patterns: list[str], scheme: str = "bfv", mode: str = "none") -> RunConfig:
    privacy: dict[str, object] = {"mode": mode}
    if mode != "none":
        privacy |= {"noise_multiplier": 1.0, "target_epsilon": None, "divisor": 50}
    encryption = {"encrypt_layers": patterns, "scheme": scheme}
    return RunConfig.parse({"encryption": encryption, "privacy": privacy})


@cache
def part() -> SiteData:
    return load_site(config([]).data.model_dump(), 0, 3)


def section(
    patterns: list[str],
    parts: Sequence[SiteData],
    scheme: str = "bfv",
    mode: str = "none",
) -> dict[str, JSON]:
    made = config(patterns, scheme, mode)
    settings: dict[str, JSON] = {
        "seed": made.seed,
        "model": made.model.model_dump(mode="json"),
        "train": made.train.model_dump(mode="json", exclude={"device"}),
        "privacy": private_plan(made).document(),
    }
    return encryption_section(made, private_plan(made), parts, settings)


def test_patterns_of_the_model_s_tensors_go_into_the_plan() -> None:
    assert section([r"1\.weight"], [part()])["encrypt_layers"] == [r"1\.weight"]


def test_a_pattern_of_no_tensor_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigurationError, match=r"'9\.\*' matches no tensor"):
        section(["9.*"], [part()])


def test_a_pattern_that_is_none_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigurationError, match="repeat within a repeat"):
        section(["(a+)+"], [part()])


def test_where_the_model_is_not_known_a_site_checks_the_patterns() -> None:
    assert section(["9.*"], [])["encrypt_layers"] == ["9.*"]


@pytest.mark.parametrize(
    ("scheme", "mode", "reason"),
    [
        ("insecure_plain", "none", "encrypts no tensor"),
        ("bfv", "example_local", "all are encrypted"),
    ],
)
def test_what_a_site_would_refuse_is_refused_before_anything_is_made(
    scheme: str, mode: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        section([r"1\.weight"], [], scheme, mode)


# --- counts ---------------------------------------------------------------------------


def counting(**changes: object) -> RunConfig:
    """Return a run with shared or local noise that tells counts."""
    privacy = {
        "mode": "example_distributed",
        "target_epsilon": 3.0,
        "sample_rate": 1.0,
        "steps_per_round": 1,
        "clip_norm": 0.5,
        "divisor": 1400.0,
        "metrics": "dp",
        **changes,
    }
    return RunConfig.parse({"privacy": privacy, "federation": {"rounds": 2}})


LOCAL: dict[str, object] = {"mode": "example_local", "target_epsilon": 1.0}


def epsilon(config: RunConfig) -> float:
    privacy, counts = private_plan(config), counts_plan(config)
    events = whole_run(privacy, counts)
    name = enforced_with(events)
    return guarantee(name, privacy.relation, events, privacy.delta).epsilon


@pytest.mark.parametrize(
    ("mode", "each"), [({}, False), ({}, True), (LOCAL, True)], ids=str
)
def test_training_and_counts_stay_within_the_target_together(
    mode: dict[str, object], each: bool
) -> None:
    config = counting(**mode, metrics_each_round=each)
    target = config.privacy.target_epsilon or 0.0
    assert 0.999 * target <= epsilon(config) <= target


@pytest.mark.parametrize("mode", [{}, LOCAL], ids=["shared", "local"])
def test_counts_by_themselves_cost_what_was_asked(mode: dict[str, object]) -> None:
    config = counting(**mode, metrics_epsilon=0.5)
    counts = counts_plan(config)
    assert counts is not None
    name = "pld" if mode else "rdp"
    event = [counts.event(counts.releases(config.federation.rounds))]
    alone = guarantee(name, Relation.ADD_OR_REMOVE_ONE, event, 1e-5).epsilon
    assert 0.499 <= alone <= 0.5


def test_training_gets_more_noise_where_counts_are_told() -> None:
    told, silent = (
        private_plan(counting(metrics=metrics)).noise_multiplier
        for metrics in ("dp", "none")
    )
    assert silent < told < 1.1 * silent


def test_more_releases_get_more_noise_for_the_same_epsilon() -> None:
    once, often = (counts_plan(counting(metrics_each_round=e)) for e in (False, True))
    assert once is not None
    assert often is not None
    assert often.noise_multiplier > 1.5 * once.noise_multiplier


def test_noise_is_never_less_than_what_is_drawn() -> None:
    counts = counts_plan(counting(target_epsilon=50.0, metrics_epsilon=40.0))
    assert counts is not None
    assert counts.noise_multiplier == LEAST_COUNT_NOISE


def test_other_metrics_have_no_counts() -> None:
    assert counts_plan(counting(metrics="none")) is None
    assert counts_plan(counting(metrics="plain")) is None
