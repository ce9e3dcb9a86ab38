"""Where a run is designed: what a configuration's patterns have to fit."""

from collections.abc import Sequence
from functools import cache

import pytest

from fedsecure.config import RunConfig
from fedsecure.errors import ConfigurationError
from fedsecure.learning.datasets import SiteData, load_site
from fedsecure.planning import encryption_section, private_plan
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
