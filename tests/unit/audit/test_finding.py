"""Verdicts add up to the worst of them."""

import pytest

from fedsecure.audit.finding import Check, Tier, Verdict, judged, worst


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.INCONCLUSIVE),
        ([Verdict.PASSED, Verdict.PASSED], Verdict.PASSED),
        ([Verdict.PASSED, Verdict.INCONCLUSIVE], Verdict.INCONCLUSIVE),
        ([Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED], Verdict.FAILED),
    ],
)
def test_the_worst_counts(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) is expected


def test_a_tier_is_as_good_as_its_worst_check() -> None:
    checks = [
        Check("a", judged(passed=True), 1.0, "", ""),
        Check("b", judged(passed=False), 1.0, "", ""),
    ]
    tier = Tier(1, "t", "l", checks)
    assert tier.verdict is Verdict.FAILED
    assert tier.document()["verdict"] == "failed"
