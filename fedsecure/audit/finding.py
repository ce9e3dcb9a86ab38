"""What a check found, and what a tier of checks comes to.

A failure is a contradiction of the claim. A pass is none found at the power that the
check's words name; it proves nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedsecure.pictures import Picture
from fedsecure.update import JSON


class Verdict(StrEnum):
    """The outcome of a check; the worst of its checks is a tier's."""

    PASSED = "passed"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer.

    Attributes
    ----------
    name : str
    verdict : Verdict
    value : float
        What was measured.
    bound : str
        What it was held against.
    said : str
        One sentence: what was measured, on what, and what it means.
    """

    name: str
    verdict: Verdict
    value: float
    bound: str
    said: str

    def document(self) -> dict[str, JSON]:
        """Return the check as plain JSON values."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "value": self.value,
            "bound": self.bound,
            "said": self.said,
        }


@dataclass(frozen=True, slots=True)
class Tier:
    """Checks of one kind.

    Attributes
    ----------
    number : int
        1 conformance, 2 mechanism, 3 end to end.
    title, lead : str
        What it asks, and how, in words for the page.
    checks : sequence of Check
    pictures : sequence of Picture
    figures : mapping
        Numbers for programs.
    """

    number: int
    title: str
    lead: str
    checks: Sequence[Check]
    pictures: Sequence[Picture] = ()
    figures: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the checks."""
        return worst([check.verdict for check in self.checks])

    def document(self) -> dict[str, JSON]:
        """Return the tier as plain JSON values."""
        return {
            "tier": self.number,
            "title": self.title,
            "verdict": str(self.verdict),
            "checks": [check.document() for check in self.checks],
            "figures": dict(self.figures),
        }


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of several verdicts; of none: inconclusive."""
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.INCONCLUSIVE)


def judged(*, passed: bool) -> Verdict:
    """Return passed or failed."""
    return Verdict.PASSED if passed else Verdict.FAILED
