"""How a run hides its updates: one value of the signed plan, checked as one.

Scheme, fields, rounding, masks and downlink depend on each other and on privacy, so
they are read together and cannot drift apart (ENCRYPTION.md sections 3 to 8 and 13).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedsecure.encoding import Profile, profile
from fedsecure.errors import ConfigurationError
from fedsecure.patterns import MAX_PATTERNS, Pattern
from fedsecure.quantiser import FixedPoint
from fedsecure.update import JSON

MAX_SITES = 93  # ENCRYPTION section 3: exact for certain up to 93 summands
NO_EPSILON = frozenset({"ckks"})
"""Schemes that are never combined with a claimed epsilon (ENCRYPTION section 14)."""
PRIVATE_FIELD_BITS = 24
"""Narrower fields would cost noise for rounding (ENCRYPTION section 5)."""
FIELDS = frozenset(
    [
        "scheme",
        "profile",
        "value_range",
        "range_from",
        "range_multiple",
        "rounding",
        "error_feedback",
        "max_contributors",
        "downlink",
        "link_mbps",
        "masking",
        "masking_threshold",
        "encrypt_layers",
    ]
)


@dataclass(frozen=True, slots=True)
class EncryptionPlan:
    """What all sites of a run do alike between training and wire.

    Attributes
    ----------
    scheme : str
    profile : Profile
    fixed : FixedPoint
        Bits and summands; its range is the first round's.
    range_from : str
        "config": one range for the whole run; "aggregate": by tensor, from the last
        opened sum.
    range_multiple : float
        How many times the last step's largest value a range is, with "aggregate"; at
        least 1.
    rounding : str
        "nearest", or "stochastic" where privacy is off.
    error_feedback : bool
        Whether what rounding took is added to the next update; never with privacy on.
    downlink : str
        "auto", "sum" or "seeds".
    link_mbps : float
        A site's link, Mbit/s; what "auto" reckons with.
    masking : str
        "none" or "pairwise".
    threshold : int
        Sites whose shares open the masks of a round; 0 without masks.
    encrypt_layers : tuple of str
        Expressions of the tensors that are encrypted, see `patterns`; empty: all are.
        The others travel open: without masks an aggregator reads them in every update,
        and with masks in the sum (`selection`).
    """

    scheme: str
    profile: Profile
    fixed: FixedPoint
    range_from: str
    range_multiple: float
    rounding: str
    error_feedback: bool
    downlink: str
    link_mbps: float
    masking: str
    threshold: int
    encrypt_layers: tuple[str, ...]

    @property
    def masked(self) -> bool:
        """Whether updates carry pairwise masks under the encryption."""
        return self.masking == "pairwise"


def read_encryption(
    section: Mapping[str, JSON], sites: int, min_contributors: int, *, private: bool
) -> EncryptionPlan:
    """Return the plan that a document's section describes.

    Parameters
    ----------
    private : bool
        Whether an epsilon is claimed.

    Raises
    ------
    ConfigurationError
        Unknown or missing field, a value out of bounds, or two that exclude each other.
    """
    unknown, missing = sorted(set(section) - FIELDS), sorted(FIELDS - set(section))
    if unknown or missing:
        raise ConfigurationError(
            f"encryption: unknown fields {unknown}, missing fields {missing}"
        )
    chosen = profile(_choice(section, "profile", ("20", "12", "8", "wide")))
    limit = _count(section, "max_contributors", sites, MAX_SITES)
    fixed = FixedPoint(_number(section, "value_range"), chosen.value_bits(limit), limit)
    fixed.check(chosen.field_bits)
    plan = EncryptionPlan(
        scheme=_choice(section, "scheme", ("bfv", "ckks", "insecure_plain")),
        profile=chosen,
        fixed=fixed,
        range_from=_choice(section, "range_from", ("config", "aggregate")),
        range_multiple=_number(section, "range_multiple"),
        rounding=_choice(section, "rounding", ("nearest", "stochastic")),
        error_feedback=_flag(section, "error_feedback"),
        downlink=_choice(section, "downlink", ("auto", "sum", "seeds")),
        link_mbps=_number(section, "link_mbps"),
        masking=_choice(section, "masking", ("none", "pairwise")),
        threshold=_count(section, "masking_threshold", 0, MAX_SITES),
        encrypt_layers=_patterns(section),
    )
    if plan.range_multiple < 1:
        raise ConfigurationError(
            f"encryption.range_multiple={plan.range_multiple}, must be at least 1: "
            "with less, a sum at its range narrows the next one"
        )
    if plan.encrypt_layers and plan.scheme == "insecure_plain":
        raise ConfigurationError(
            "encryption.encrypt_layers does nothing with scheme=insecure_plain, which "
            "encrypts no tensor"
        )
    _check_masks(plan, sites, min_contributors)
    if private:
        _check_private(plan)
    return plan


def _check_masks(plan: EncryptionPlan, sites: int, min_contributors: int) -> None:
    if not plan.masked:
        if plan.threshold:
            raise ConfigurationError(
                f"encryption.masking_threshold={plan.threshold} does nothing without "
                "masking=pairwise"
            )
        return
    if sites < 3:
        raise ConfigurationError(
            f"encryption.masking=pairwise with {sites} sites: the sum less one's own "
            "update is the other's; at least 3 are needed"
        )
    if not 2 <= plan.threshold <= min_contributors:
        raise ConfigurationError(
            f"encryption.masking_threshold={plan.threshold}, must be from 2 to the "
            f"{min_contributors} contributors a round needs"
        )


def _check_private(plan: EncryptionPlan) -> None:
    if plan.profile.field_bits < PRIVATE_FIELD_BITS:
        raise ConfigurationError(
            f"encryption.profile={plan.profile.name!r} has fields of "
            f"{plan.profile.field_bits} bits: with privacy on the noise needs "
            f"{PRIVATE_FIELD_BITS}; choose 20 or wide"
        )
    if plan.scheme in NO_EPSILON:
        raise ConfigurationError(
            f"encryption.scheme={plan.scheme!r} is not IND-CPA-D secure: no epsilon is "
            "claimed with it; choose bfv, or privacy.mode=none"
        )
    if plan.rounding != "nearest" or plan.error_feedback:
        raise ConfigurationError(
            f"encryption.rounding={plan.rounding}, error_feedback="
            f"{plan.error_feedback}: with privacy on, rounding is nearest and nothing "
            "is carried into the next round, for no accountant charges it"
        )
    if plan.encrypt_layers:
        raise ConfigurationError(
            "encryption.encrypt_layers leaves tensors open: with privacy on all are "
            "encrypted"
        )


def _choice(section: Mapping[str, JSON], name: str, options: tuple[str, ...]) -> str:
    value = section[name]
    if not isinstance(value, str) or value not in options:
        raise ConfigurationError(
            f"encryption.{name}={value!r}, must be one of {', '.join(options)}"
        )
    return value


def _number(section: Mapping[str, JSON], name: str) -> float:
    value = section[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"encryption.{name}={value!r} is not a number")
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(
            f"encryption.{name}={value}, must be positive and finite"
        )
    return float(value)


def _count(section: Mapping[str, JSON], name: str, low: int, high: int) -> int:
    value = section[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"encryption.{name}={value!r} is not a whole number")
    if not low <= value <= high:
        raise ConfigurationError(
            f"encryption.{name}={value}, must be from {low} to {high}"
        )
    return value


def _flag(section: Mapping[str, JSON], name: str) -> bool:
    value = section[name]
    if not isinstance(value, bool):
        raise ConfigurationError(f"encryption.{name}={value!r}, must be true or false")
    return value


def _patterns(section: Mapping[str, JSON]) -> tuple[str, ...]:
    value = section["encrypt_layers"]
    if not isinstance(value, list) or len(value) > MAX_PATTERNS:
        raise ConfigurationError(
            f"encryption.encrypt_layers={value!r}, must be a list of at most "
            f"{MAX_PATTERNS} expressions"
        )
    return tuple(_pattern(text) for text in value)


def _pattern(text: JSON) -> str:
    if not isinstance(text, str):
        raise ConfigurationError(
            f"encryption.encrypt_layers: {text!r} is no text: quote it"
        )
    try:
        return Pattern(text).text
    except ConfigurationError as bad:
        raise ConfigurationError(f"encryption.encrypt_layers: {bad}") from bad
