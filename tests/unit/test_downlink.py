"""Which form a sum takes: as the plan says, or what the stated link makes quicker."""

import pytest

from fedsecure.downlink import downlink_form
from fedsecure.errors import ConfigurationError


@pytest.mark.parametrize("choice", ["sum", "seeds"])
@pytest.mark.parametrize("link_mbps", [0.0, 1.0, 1e6])
def test_a_stated_form_is_taken_whatever_the_link(
    choice: str, link_mbps: float
) -> None:
    assert downlink_form(choice, 16, 1_000_000, link_mbps) == choice


def test_auto_without_a_stated_link_is_seeds() -> None:
    assert downlink_form("auto", 93, 100_000_000, 0.0) == "seeds"


@pytest.mark.parametrize("link_mbps", [1.0, 10.0, 50.0])
def test_auto_on_a_slow_link_is_seeds(link_mbps: float) -> None:
    assert downlink_form("auto", 16, 10_000_000, link_mbps) == "seeds"


@pytest.mark.parametrize("sites", [6, 16, 93])
def test_auto_on_a_fast_link_is_the_sum(sites: int) -> None:
    assert downlink_form("auto", sites, 10_000_000, 1000.0) == "sum"


def test_auto_with_few_sites_is_seeds_even_on_a_fast_link() -> None:
    assert downlink_form("auto", 2, 10_000_000, 1000.0) == "seeds"


def test_auto_for_a_small_model_is_seeds_for_twice_the_bytes_gain_nothing() -> None:
    assert downlink_form("auto", 16, 10_000, 1000.0) == "seeds"


def test_auto_goes_from_seeds_to_the_sum_once_as_the_link_grows() -> None:
    forms = [downlink_form("auto", 16, 10**7, 10.0 * i) for i in range(1, 200)]
    assert forms == sorted(forms)  # "seeds" before "sum"
    assert set(forms) == {"seeds", "sum"}


def test_another_choice_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match="one of auto, sum, seeds"):
        downlink_form("both", 3, 100, 100.0)
