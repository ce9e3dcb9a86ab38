"""The privacy plan of a run: clip, noise, sampling, divisor and delta in one value.

Sigma never travels alone. The plan is public, signed with the run plan and equal at
all sites; nothing in it is taken from a site's rows (PRIVACY.md sections 2 and 3).
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum

from fedsecure.accounting import Accountant, PrivacyEvent, Relation
from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError
from fedsecure.update import JSON

FORMAT = 1
AccountantFactory = Callable[[Relation], Accountant]
"""A plug's `create`: an accountant that has spent nothing."""

_BOUNDS: Mapping[str, tuple[float, float]] = {
    "clip_norm": (1e-9, 1e9),
    "noise_multiplier": (0.1, 1024.0),
    "sample_rate": (1e-9, 1.0),
    "delta": (1e-30, 0.1),
    "divisor": (1e-6, 1e12),
}
_COUNTS: Mapping[str, tuple[int, int]] = {
    "steps_per_round": (1, 1_000_000),
    "rounds": (1, 1_000_000),
}


class Mode(StrEnum):
    """Whom the noise protects against, and where it is drawn."""

    NONE = "none"
    EXAMPLE_LOCAL = "example_local"


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """Everything that decides epsilon, checked when made.

    Mode `none` takes no other field: a number that does nothing is refused.

    Attributes
    ----------
    mode : Mode
    relation : Relation
        What a neighbouring data set is; printed beside every epsilon.
    clip_norm : float
        Bound C on the L2 norm of one example's gradient, over all layers.
    noise_multiplier : float
        Standard deviation z of the noise over the sensitivity.
    sample_rate : float
        Poisson probability q of an example in one step.
    steps_per_round, rounds : int
        Steps a site takes in a round, and rounds the run is calibrated for.
    delta : float
    divisor : float
        What a step's noisy sum is divided by: a public expected batch, never
        ``len(rows)``, which would make add-or-remove-one false (Opacus #819).
    """

    mode: Mode
    relation: Relation = Relation.ADD_OR_REMOVE_ONE
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    sample_rate: float = 0.0
    steps_per_round: int = 0
    rounds: int = 0
    delta: float = 0.0
    divisor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse NaN, values out of bounds, and numbers beside mode `none`."""
        for name, bounds in _BOUNDS.items():
            _check_number(self.mode, name, getattr(self, name), bounds)
        for name, limits in _COUNTS.items():
            _check_count(self.mode, name, getattr(self, name), limits)

    def event(self, rounds: int = 1) -> PrivacyEvent:
        """Return what `rounds` rounds do to the data, in the accountant's words.

        Raises
        ------
        ConfigurationError
            In mode `none`, which promises nothing and so spends nothing.
        """
        if self.mode is Mode.NONE:
            raise ConfigurationError("privacy mode none has no event to account for")
        if rounds < 1:
            raise ConfigurationError(f"rounds={rounds}, must be at least 1")
        steps = self.steps_per_round * rounds
        return PrivacyEvent(
            "poisson_gaussian", self.noise_multiplier, self.sample_rate, steps
        )

    def check_rows(self, rows: int) -> None:
        """Refuse a delta that would allow publishing whole rows.

        Raises
        ------
        ConfigurationError
            If delta >= 1/rows. The message holds the row count: it stays at the site.
        """
        if self.mode is not Mode.NONE:
            check_delta(self.delta, rows)

    def document(self) -> dict[str, JSON]:
        """Return the plan as plain JSON values, format number first."""
        words = {"mode": str(self.mode), "relation": str(self.relation)}
        return {"format": FORMAT, **asdict(self), **words}

    def digest(self) -> bytes:
        """Return SHA-256 over the canonical document (RFC 8785); 32 bytes."""
        return hashlib.sha256(canonical(self.document())).digest()

    @classmethod
    def from_document(cls, document: Mapping[str, JSON]) -> "PrivacyPlan":
        """Return the plan that `document` describes.

        Raises
        ------
        ConfigurationError
            Unknown or missing field, another format, a mode this version does not
            do, a value of the wrong type, NaN or out of bounds.
        """
        expected = {"format", *(field.name for field in fields(cls))}
        unknown, missing = set(document) - expected, expected - set(document)
        if unknown or missing:
            raise ConfigurationError(
                f"privacy plan: unknown fields {sorted(unknown)}, "
                f"missing fields {sorted(missing)}"
            )
        if document["format"] != FORMAT:
            raise ConfigurationError(
                f"privacy plan format={document['format']!r}, this version: {FORMAT}"
            )
        numbers = {name: _number(document, name) for name in _BOUNDS}
        counts = {name: _count(document, name) for name in _COUNTS}
        mode, relation = _mode(document["mode"]), _relation(document["relation"])
        return cls(mode=mode, relation=relation, **numbers, **counts)  # type: ignore[arg-type]


def check_delta(delta: float, rows: int) -> None:
    """Refuse delta >= 1/rows (Dwork and Roth 2014, section 2.3).

    Raises
    ------
    ConfigurationError
        With the bound. The message holds the row count: it stays at the site.
    """
    if rows < 1:
        raise ConfigurationError(f"rows={rows}, a private data set needs at least 1")
    if not 0 < delta < 1 / rows:
        raise ConfigurationError(
            f"delta={delta}, must be above 0 and below 1/rows = {1 / rows:.3g}; "
            "lower privacy.delta"
        )


def event_document(event: PrivacyEvent) -> dict[str, JSON]:
    """Return an event as a ledger keeps it; a discrete one has three fields more."""
    document: dict[str, JSON] = {
        "type": event.kind,
        "noise_multiplier": event.noise_multiplier,
        "sample_rate": event.sample_rate,
        "steps": event.steps,
    }
    if event.counted_shares or event.share_sigma or event.dimension:
        document["counted_shares"] = event.counted_shares
        document["share_sigma"] = event.share_sigma
        document["dimension"] = event.dimension
    return document


def read_event(document: Mapping[str, JSON]) -> PrivacyEvent:
    """Return the event `event_document` wrote; whether it is known is not asked.

    Raises
    ------
    KeyError
        If a field is missing.
    ConfigurationError
        If a number is none.
    """
    return PrivacyEvent(
        str(document["type"]),
        _number(document, "noise_multiplier"),
        _number(document, "sample_rate"),
        _count(document, "steps"),
        *_lattice(document),
    )


def calibrate(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    relation: Relation,
    accountant: AccountantFactory,
) -> float:
    """Return the least noise multiplier that keeps `steps` steps within the target.

    Parameters
    ----------
    target_epsilon : float
        Never exceeded; undercut by at most 0.05%.
    accountant : AccountantFactory
        The one the run is enforced with: another one ends it early.

    Raises
    ------
    ConfigurationError
        If the target is not positive and finite, or no multiplier in [0.1, 1024]
        meets it closely.
    """

    def event(noise_multiplier: float) -> PrivacyEvent:
        return PrivacyEvent("poisson_gaussian", noise_multiplier, sample_rate, steps)

    return calibrate_event(target_epsilon, delta, relation, accountant, event)


def calibrate_event(
    target_epsilon: float,
    delta: float,
    relation: Relation,
    accountant: AccountantFactory,
    event: Callable[[float], PrivacyEvent],
) -> float:
    """Return the least noise multiplier whose event stays within the target.

    Parameters
    ----------
    target_epsilon, accountant
        As for `calibrate`, with the same exceptions.
    event : callable
        Noise multiplier -> everything the run does; more noise must not cost more.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise ConfigurationError(f"target_epsilon={target_epsilon}, must be positive")

    def cost(noise_multiplier: float) -> float:
        spent = accountant(relation)
        spent.compose(event(noise_multiplier))
        return spent.epsilon(delta)

    low, high = _bracket(cost, target_epsilon)
    return _narrow(cost, target_epsilon, low, high)


_Point = tuple[float, float]
"""Noise multiplier and its epsilon."""


def _bracket(cost: Callable[[float], float], target: float) -> tuple[_Point, _Point]:
    """Return neighbours in a doubling grid: one costs too much, the next does not."""
    least, most = _BOUNDS["noise_multiplier"]
    z = 1.0
    spent = cost(z)
    while spent > target:
        before, z = (z, spent), 2 * z
        if z > most:
            raise ConfigurationError(
                f"target_epsilon={target} needs a noise multiplier above {most}; "
                "raise epsilon, or lower sample_rate or the number of steps"
            )
        spent = cost(z)
        if spent <= target:
            return before, (z, spent)
    while spent <= target:
        after, z = (z, spent), z / 2
        if z < least:
            raise ConfigurationError(
                f"target_epsilon={target} needs a noise multiplier below {after[0]}, "
                f"which costs {after[1]:.4g}; lower epsilon to that or below"
            )
        spent = cost(z)
    return (z, spent), after


def _narrow(
    cost: Callable[[float], float], target: float, low: _Point, high: _Point
) -> float:
    """Close in on the target from the safe side.

    False position in log-log, where the curve is almost straight: the aim lies a
    quarter of the tolerance below the target, so that a near miss is a hit.
    """
    aim = math.log(target * (1 - 1.25e-4))
    for turn in range(60):
        if high[1] >= target * (1 - 5e-4):
            return high[0]
        x0, x1 = math.log(low[0]), math.log(high[0])
        y0, y1 = math.log(low[1]) - aim, math.log(max(high[1], 1e-12)) - aim
        share = y0 / (y0 - y1)
        # Every third turn halves, so that a bent curve cannot hold one end still.
        share = 0.5 if turn % 3 == 2 else min(max(share, 0.02), 0.98)
        z = math.exp(x0 + share * (x1 - x0))
        spent = cost(z)
        low, high = ((z, spent), high) if spent > target else (low, (z, spent))
    return high[0]


def _check_number(
    mode: Mode, name: str, value: float, bounds: tuple[float, float]
) -> None:
    if mode is Mode.NONE:
        if value != 0:
            raise ConfigurationError(
                f"{name}={value} does nothing in privacy mode none"
            )
        return
    low, high = bounds
    if not low <= value <= high:  # also refuses NaN
        raise ConfigurationError(f"{name}={value}, must be from {low} to {high}")


def _check_count(mode: Mode, name: str, value: int, limits: tuple[int, int]) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name}={value!r} is not a whole number")
    _check_number(mode, name, value, limits)


def _number(document: Mapping[str, JSON], name: str) -> float:
    value = document[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"privacy: {name}={value!r} is not a number")
    return float(value)


def _count(document: Mapping[str, JSON], name: str) -> int:
    value = _number(document, name)
    if not value.is_integer():  # NaN and infinities are no integers either
        raise ConfigurationError(f"privacy: {name}={value} is not a whole number")
    return int(value)


def _lattice(document: Mapping[str, JSON]) -> tuple[int, float, int]:
    """Return what only a discrete event has; lines from before it have none of it."""
    if "counted_shares" not in document:
        return 0, 0.0, 0
    return (
        _count(document, "counted_shares"),
        _number(document, "share_sigma"),
        _count(document, "dimension"),
    )


def _mode(value: JSON) -> Mode:
    if value not in tuple(Mode):
        raise ConfigurationError(
            f"privacy mode {value!r} is unknown; this version does: {', '.join(Mode)}"
        )
    return Mode(str(value))


def _relation(value: JSON) -> Relation:
    if value not in tuple(Relation):
        raise ConfigurationError(
            f"relation {value!r} is unknown; choose one of: {', '.join(Relation)}"
        )
    return Relation(str(value))
