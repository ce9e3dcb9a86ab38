"""Counts of test rows that leave a site with noise: when, how noisy, at what price.

Two counts: rows that the model classified correctly, and those it did not. A row of the
data set is in one of them or, when it is a training row, in none; so a row that comes
or goes changes one count by one, and the sensitivity is 1 in every norm. Each count
gets discrete Gaussian noise of its own; nothing else that was measured leaves, and
nothing that is done to the noisy counts can tell more (docs/adr/0021).
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from fedsecure.accounting import LEAST_COUNT_NOISE, PrivacyEvent
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.mechanism import DiscreteGaussian, RandomSource
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import JSON

log = logging.getLogger(__name__)

RELEASES = ("none", "dp", "plain")
"""What may be told of a model's quality, from the strictest word on."""
CORRECT, WRONG, NOISE = "noisy_correct", "noisy_wrong", "noise"
"""Fields of a site's metrics under `dp`: two whole numbers, below zero too, and the
public standard deviation of each."""
MOST_NOISE = 2.0**16
_MOST_ROWS = 2**52


@dataclass(frozen=True, slots=True)
class CountsPlan:
    """The plan's section on counts, checked when made; public and equal at all sites.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation of the noise on each count, in rows; from 2.
    each_round : bool
        Whether every round tells of the model it starts from; else the last one alone
        is told of, once.
    """

    noise_multiplier: float
    each_round: bool

    def __post_init__(self) -> None:
        """Refuse NaN and noise that is not drawn."""
        if not LEAST_COUNT_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise ConfigurationError(
                f"counts.noise_multiplier={self.noise_multiplier}, must be from "
                f"{LEAST_COUNT_NOISE:g} to {MOST_NOISE:g} rows"
            )

    def releases(self, rounds: int) -> int:
        """Return how often a run of so many rounds tells counts: at its end too."""
        return rounds + 1 if self.each_round else 1

    def event(self, releases: int = 1) -> PrivacyEvent:
        """Return what telling counts so often does, in the accountant's words."""
        return PrivacyEvent.of_counts(self.noise_multiplier, releases)

    def release(
        self, told: Mapping[str, float], source: RandomSource
    ) -> dict[str, JSON]:
        """Return what leaves of a site's metrics: fresh noise at every call.

        Who calls it has paid for it, and keeps the answer: the same question is
        answered by the same bytes.

        Parameters
        ----------
        told : mapping
            What was measured; `num_test` and `accuracy` are read, all else stays.
        source : RandomSource
            The system's generator; with any other epsilon is void.
        """
        noise = DiscreteGaussian(self.noise_multiplier).draw(2, source)
        correct, wrong = counted(told)
        return {
            CORRECT: correct + int(noise[0]),
            WRONG: wrong + int(noise[1]),
            NOISE: self.noise_multiplier,
        }

    def document(self) -> dict[str, JSON]:
        """Return the section as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: JSON) -> "CountsPlan":
        """Return the section that `document` describes.

        Raises
        ------
        ConfigurationError
            No section, an unknown or missing field, or a value that is none.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            raise ConfigurationError(
                f"plan section counts={document!r}, needs exactly {sorted(names)}"
            )
        noise, each = document["noise_multiplier"], document["each_round"]
        if isinstance(noise, bool) or not isinstance(noise, int | float):
            raise ConfigurationError(f"counts.noise_multiplier={noise!r} is no number")
        if not isinstance(each, bool):
            raise ConfigurationError(f"counts.each_round={each!r}, must be true/false")
        return cls(float(noise), each)


def counts_of(
    document: Mapping[str, JSON], privacy: PrivacyPlan | None
) -> CountsPlan | None:
    """Return the counts that a run's plan releases; None unless its metrics are `dp`.

    Raises
    ------
    ConfigurationError
        The section is missing, is there for nothing, or nothing bounds what it tells.
    """
    metrics = document.get("metrics")
    if metrics != "dp":
        if "counts" in document:
            raise ConfigurationError(
                f"plan section counts does nothing with metrics={metrics!r}"
            )
        return None
    if privacy is None:
        raise ConfigurationError(
            "metrics='dp' without differential privacy: no budget pays for counts in "
            "mode none; ask for metrics none or plain, or choose a privacy mode"
        )
    require_rows(privacy)
    return CountsPlan.from_document(document.get("counts"))


def require_rows(privacy: PrivacyPlan) -> None:
    """Return only if one unit is one row: a person or a site may be many test rows.

    Raises
    ------
    ConfigurationError
        With what to ask for instead.
    """
    if privacy.mode.unit != "example":
        raise ConfigurationError(
            f"metrics=dp in mode {privacy.mode}: one {privacy.mode.unit} may be any "
            "number of test rows, so noise for one row would not hide it; choose "
            "metrics none, or plain if the sites' policies allow it"
        )


def counted(told: Mapping[str, float]) -> tuple[int, int]:
    """Return how many test rows were classified correctly, and how many not.

    Nothing that training code tells can stop a release: a refusal would depend on the
    rows. What is not told, or is no count, counts no row.
    """
    rows, share = told.get("num_test", 0.0), told.get("accuracy", 0.0)
    known = 0 <= rows <= _MOST_ROWS and float(rows).is_integer() and 0 <= share <= 1
    if not known or "num_test" not in told or (rows and "accuracy" not in told):
        log.warning(
            "metrics=dp releases counts of num_test rows by accuracy (0 to 1); the "
            "training code told %s: no row is counted, only noise leaves",
            ", ".join(sorted(told)) or "nothing",
        )
        return 0, 0
    correct = round(rows * share)
    return correct, int(rows) - correct
