"""The signed plan of a run, as a site reads it: strict, frozen, equal at all sites.

The plan is public JSON. Aggregators pass it on by digest; only sites read its meaning.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fedsecure.accounting import PrivacyEvent
from fedsecure.encoding import Profile
from fedsecure.encryption import MAX_SITES, EncryptionPlan, read_encryption
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.counts import RELEASES, CountsPlan, counts_of
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.quantiser import FixedPoint
from fedsecure.release import plan_digest
from fedsecure.trainer import JSON
from fedsecure.wholes import Wholes

FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FIELDS = frozenset(
    [
        "format",
        "federation",
        "run",
        "project",
        "rounds",
        "sites",
        "custodians",
        "min_contributors",
        "seed",
        "metrics",
        "model",
        "train",
        "privacy",
        "encryption",
        "dataset",
        "max_rows",
    ]
)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What all parties of a run agreed on before its first round.

    Attributes
    ----------
    federation, run, project, dataset : str
        Names; `dataset` is the steward's id of the data, equal at all sites.
    rounds : int
        Rounds planned; at least 1.
    sites, custodians : tuple of str
        The cohort, and who makes the run key, in order of preference.
    min_contributors : int
        No aggregate of fewer sites is opened.
    seed : int
        First model, and rounding and shuffling where privacy is off.
    metrics : str
        "none", "dp" or "plain": whether what a site measured leaves it, and how.
    settings : Mapping
        The sections model, train, privacy and seed, for the training code; and "grid",
        what shared noise is sized by, where it is.
    privacy : PrivacyPlan or None
        None in mode `none`.
    encryption : EncryptionPlan
        How an update becomes integers, masked integers, and a ciphertext.
    max_rows : int
        Rows that weigh 1 when sites weigh by rows; 0: all sites weigh the same, and
        always with privacy on, where a count would leak (ENCRYPTION section 4).
    digest : bytes
        SHA-256 of the canonical document; 32 bytes.
    counts : CountsPlan or None
        What leaves where `metrics` is "dp": the section "counts", there only then.
    """

    federation: str
    run: str
    project: str
    dataset: str
    rounds: int
    sites: tuple[str, ...]
    custodians: tuple[str, ...]
    min_contributors: int
    seed: int
    metrics: str
    settings: Mapping[str, JSON]
    privacy: PrivacyPlan | None
    encryption: EncryptionPlan
    max_rows: int
    digest: bytes
    counts: CountsPlan | None = None

    @property
    def scheme(self) -> str:
        """Name of the encryption scheme."""
        return self.encryption.scheme

    @property
    def profile(self) -> Profile:
        """How integers share a coefficient."""
        return self.encryption.profile

    @property
    def fixed(self) -> FixedPoint:
        """How floats become integers in the first round."""
        return self.encryption.fixed

    @property
    def shared_noise(self) -> bool:
        """Whether sites add shares of one noise, on an integer grid."""
        return self.privacy is not None and self.privacy.mode.shared

    def lattice(self, dimension: int) -> Lattice:
        """Return the grid of shared noise; ConfigurationError if there is none."""
        if self.privacy is None or not self.shared_noise:
            raise ConfigurationError(f"run {self.run} has no shared noise")
        return Lattice.of(
            self.privacy, dimension, self.profile.field_bits, len(self.sites)
        )

    def wholes(self, dimension: int) -> Wholes:
        """Return what takes a sum on the grid to a step of the model.

        Minus the learning rate over the public divisor for a sum of gradients; one over
        it for a sum of updates, which are steps already.
        """
        lattice, privacy = self.lattice(dimension), self.privacy
        if privacy is None:
            raise ConfigurationError(f"run {self.run} has no shared noise")
        rate = 1.0 if privacy.mode is Mode.SILO else -self._learning_rate()
        unit = rate / (lattice.steps * privacy.divisor)
        fixed = self.fixed
        return Wholes(fixed.clip, fixed.bits, fixed.max_contributors, None, unit)

    def event(self, dimension: int) -> PrivacyEvent:
        """Return what one round does to a site's data, in the accountant's words.

        Raises
        ------
        ConfigurationError
            In privacy mode none.
        """
        if self.privacy is None:
            raise ConfigurationError(f"run {self.run} is in privacy mode none")
        if self.shared_noise:
            return self.lattice(dimension).event(self.privacy)
        return self.privacy.event()

    def _learning_rate(self) -> float:
        train = self.settings["train"]
        rate = train.get("learning_rate") if isinstance(train, Mapping) else None
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise ConfigurationError(f"train.learning_rate={rate!r} is not a number")
        return float(rate)


def read_plan(document: Mapping[str, JSON]) -> RunPlan:
    """Return the plan that `document` describes.

    Raises
    ------
    ConfigurationError
        Unknown or missing field, or a value out of bounds.
    """
    _same_fields(document, _FIELDS | ({"counts"} & set(document)), "plan")
    if document["format"] != FORMAT:
        raise ConfigurationError(f"plan format {document['format']}, read is {FORMAT}")
    sites, custodians = _names(document, "sites"), _names(document, "custodians")
    _check_cohort(sites, custodians)
    privacy = _privacy(_section(document, "privacy"))
    least = _count(document, "min_contributors", 1, len(sites))
    encryption = read_encryption(
        _section(document, "encryption"),
        len(sites),
        least,
        private=privacy is not None,
    )
    settings: dict[str, JSON] = {
        k: document[k] for k in ("model", "train", "privacy", "seed")
    }
    if privacy is not None and privacy.mode.shared:
        _check_shared(document, privacy, least)
        settings["grid"] = {
            "field_bits": encryption.profile.field_bits,
            "sites": len(sites),
        }
    return RunPlan(
        federation=_text(document, "federation"),
        run=_name(document, "run"),
        project=_name(document, "project"),
        dataset=_name(document, "dataset"),
        rounds=_count(document, "rounds", 1, 1_000_000),
        sites=sites,
        custodians=custodians,
        min_contributors=least,
        seed=_count(document, "seed", 0, 2**53 - 1),
        metrics=_choice(document, "metrics", RELEASES),
        settings=settings,
        privacy=privacy,
        encryption=encryption,
        max_rows=_max_rows(document),
        digest=plan_digest(document),
        counts=counts_of(document, privacy),
    )


def _privacy(section: Mapping[str, JSON]) -> PrivacyPlan | None:
    if section.get("mode") == Mode.NONE:
        return None
    return PrivacyPlan.from_document(section)


def _check_shared(
    document: Mapping[str, JSON], privacy: PrivacyPlan, least: int
) -> None:
    """Refuse a plan whose sum is not the one the noise was shared for."""
    if privacy.min_contributors != least:
        raise ConfigurationError(
            f"privacy.min_contributors={privacy.min_contributors}, the run's is "
            f"{least}: noise is shared for the sites a sum needs"
        )
    train = _section(document, "train")
    if privacy.mode is not Mode.SILO and train.get("momentum", 0.0) != 0:
        raise ConfigurationError(
            f"train.momentum={train['momentum']!r}, must be 0 where a round is one "
            "step: sites keep no velocity between rounds"
        )


def _max_rows(document: Mapping[str, JSON]) -> int:
    rows = _count(document, "max_rows", 0, 2**40)
    if rows and _section(document, "privacy").get("mode") != Mode.NONE:
        raise ConfigurationError(f"max_rows={rows}, must be 0 when privacy is on")
    return rows


def _check_cohort(sites: tuple[str, ...], custodians: tuple[str, ...]) -> None:
    if len(set(sites)) != len(sites) or not 1 <= len(sites) <= MAX_SITES:
        raise ConfigurationError(
            f"plan names {len(sites)} sites, must be 1 to {MAX_SITES} different ones"
        )
    strangers = sorted(set(custodians) - set(sites))
    if strangers or not custodians:
        raise ConfigurationError(f"custodians must be sites of the run: {strangers}")


def _same_fields(
    section: Mapping[str, JSON], expected: frozenset[str], what: str
) -> None:
    unknown, missing = sorted(set(section) - expected), sorted(expected - set(section))
    if unknown or missing:
        raise ConfigurationError(
            f"{what}: unknown fields {unknown}, missing fields {missing}"
        )


def _section(document: Mapping[str, JSON], name: str) -> Mapping[str, JSON]:
    value = document[name]
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"plan field {name!r} is not a section")
    return value


def _text(document: Mapping[str, JSON], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise ConfigurationError(f"plan field {name!r} must be a text, got {value!r}")
    return value


def _name(document: Mapping[str, JSON], name: str) -> str:
    value = _text(document, name)
    if not _NAME.fullmatch(value):
        raise ConfigurationError(
            f"plan field {name}={value!r}: use a-z, 0-9, '.', '_', '-', at most 63"
        )
    return value


def _names(document: Mapping[str, JSON], name: str) -> tuple[str, ...]:
    value = document.get(name)
    if not isinstance(value, list):
        raise ConfigurationError(f"plan field {name!r} must be a list")
    return tuple(_name({"site": item}, "site") for item in value)


def _count(document: Mapping[str, JSON], name: str, low: int, high: int) -> int:
    value = document.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"plan field {name}={value!r} is not a whole number")
    if not low <= value <= high:
        raise ConfigurationError(f"plan field {name}={value}, must be {low} to {high}")
    return value


def _choice(document: Mapping[str, JSON], name: str, options: tuple[str, ...]) -> str:
    value = _text(document, name)
    if value not in options:
        raise ConfigurationError(f"plan field {name}={value!r}, one of {options}")
    return value
