"""Which tiers run, and what a refusal of the product's own comes to."""

import pytest

from fedsecure.audit import programme
from fedsecure.audit.finding import Tier, Verdict
from fedsecure.audit.programme import PLAN, read_tiers, run_audit
from fedsecure.audit.randomness import Meter
from fedsecure.errors import ConfigurationError, NotFinite
from tests.fakes.randomness import Stream


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return which tiers ran; they do nothing."""
    ran: list[int] = []

    def part(number: int) -> programme.Part:
        def run(meter: Meter) -> Tier:
            assert meter.bytes(1)
            ran.append(number)
            return Tier(number, "", "", [])

        return run

    tiers = {n: (part(n),) for n in (1, 2, 3)}
    monkeypatch.setattr(programme, "_TIERS", tiers)
    return ran


def test_tiers_run_in_order_and_once_each(told: list[int]) -> None:
    shown: list[Tier] = []
    found = run_audit([3, 1, 3], Stream("a"), shown.append)
    assert told == [1, 3]
    assert found == shown


@pytest.mark.parametrize("tiers", [[], [0], [1, 4]])
def test_an_unknown_tier_is_refused_before_anything_runs(
    tiers: list[int], told: list[int]
) -> None:
    with pytest.raises(ConfigurationError, match="choose some of 1, 2, 3"):
        run_audit(tiers, Stream("a"))
    assert told == []


def test_a_text_names_tiers() -> None:
    assert read_tiers("1, 3") == [1, 3]


@pytest.mark.parametrize("text", ["", "one", "1;2"])
def test_a_text_that_names_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="as in 1,2,3"):
        read_tiers(text)


def test_noise_that_the_product_refuses_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(meter: Meter) -> Tier:
        raise NotFinite("not on the integer grid")

    monkeypatch.setattr(programme, "_TIERS", {2: (refuses,)})
    found = run_audit([2], Stream("a"))
    assert found[0].verdict is Verdict.FAILED
    assert found[0].checks[0].said == "not on the integer grid"


def test_the_plan_is_audited_where_trials_tell_most() -> None:
    assert PLAN.noise_multiplier == 1
    assert PLAN.max_colluders == 1
