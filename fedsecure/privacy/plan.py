"""The privacy plan of a run: clip, noise, sampling, divisor and delta in one value.

Sigma never travels alone. The plan is public, signed with the run plan and equal at
all sites; nothing in it is taken from a site's rows (PRIVACY.md sections 2 and 3).
"""

import hashlib
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

NOISE_BOUNDS = (0.1, 1024.0)
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "clip_norm": (1e-9, 1e9),
    "noise_multiplier": NOISE_BOUNDS,
    "sample_rate": (1e-9, 1.0),
    "delta": (1e-30, 0.1),
    "divisor": (1e-6, 1e12),
}
_COUNTS: Mapping[str, tuple[int, int]] = {
    "steps_per_round": (1, 1_000_000),
    "rounds": (1, 1_000_000),
}
_SHARES = ("min_contributors", "max_colluders")


class Mode(StrEnum):
    """Whom the noise protects against, and where it is drawn."""

    NONE = "none"
    EXAMPLE_DISTRIBUTED = "example_distributed"
    USER_DISTRIBUTED = "user_distributed"
    EXAMPLE_LOCAL = "example_local"
    SILO = "silo"

    @property
    def shared(self) -> bool:
        """Whether sites add shares of one noise, inside the encrypted sum."""
        return self in {Mode.EXAMPLE_DISTRIBUTED, Mode.USER_DISTRIBUTED, Mode.SILO}

    @property
    def unit(self) -> str:
        """What neighbouring data sets differ by."""
        units = {Mode.USER_DISTRIBUTED: "user", Mode.SILO: "site"}
        return units.get(self, "example")

    def units(self, rows: int, users: int) -> int:
        """Return how many units a site holds, of its rows and the persons behind them.

        Raises
        ------
        ConfigurationError
            The unit is the user and the site does not tell users apart.
        """
        if self is not Mode.USER_DISTRIBUTED:
            return rows
        if users < 1:
            raise ConfigurationError(
                "privacy mode user_distributed: this site does not know whose each row "
                "is; set data.user_column in its own configuration"
            )
        return users


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
        Steps a site takes in a round, and rounds the run is calibrated for. Where
        noise is shared a round is one step.
    delta : float
    divisor : float
        What a step's noisy sum is divided by: a public expected batch, never
        ``len(rows)``, which would make add-or-remove-one false (Opacus #819). Of one
        site where noise is local, of all sites together where it is shared.
    min_contributors, max_colluders : int
        Where noise is shared: sites a sum needs, and how many of them may know their
        own share and tell. `shares` of the rest carry the noise promised.
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
    min_contributors: int = 0
    max_colluders: int = 0

    def __post_init__(self) -> None:
        """Refuse NaN, values out of bounds, and numbers beside mode `none`."""
        for name, bounds in _BOUNDS.items():
            _check_number(self.mode, name, getattr(self, name), bounds)
        for name, limits in _COUNTS.items():
            _check_count(self.mode, name, getattr(self, name), limits)
        _check_shares(self)

    @property
    def shares(self) -> int:
        """Return h: how many sites' shares add up to the noise promised."""
        return self.min_contributors - self.max_colluders

    def event(self, rounds: int = 1) -> PrivacyEvent:
        """Return what `rounds` rounds do to the data, in the accountant's words.

        Raises
        ------
        ConfigurationError
            In mode `none`, which promises nothing and so spends nothing.
        """
        if self.mode is Mode.NONE:
            raise ConfigurationError("privacy mode none has no event to account for")
        if self.mode.shared:
            raise ConfigurationError(
                f"the event of {self.mode} depends on the model: ask `lattice`"
            )
        if rounds < 1:
            raise ConfigurationError(f"rounds={rounds}, must be at least 1")
        steps = self.steps_per_round * rounds
        return PrivacyEvent(
            "poisson_gaussian", self.noise_multiplier, self.sample_rate, steps
        )

    def check_rows(self, rows: int) -> None:
        """Refuse a delta that would allow publishing whole rows.

        Parameters
        ----------
        rows : int
            Or users, where they are the unit: see `Mode.units`.

        Raises
        ------
        ConfigurationError
            If delta >= 1/rows. The message holds the row count: it stays at the site.
        """
        if self.mode is not Mode.NONE:
            users = self.mode is Mode.USER_DISTRIBUTED
            check_delta(self.delta, rows, "users" if users else "rows")

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
        counts = {name: _count(document, name) for name in (*_COUNTS, *_SHARES)}
        mode, relation = _mode(document["mode"]), _relation(document["relation"])
        return cls(mode=mode, relation=relation, **numbers, **counts)  # type: ignore[arg-type]


def check_delta(delta: float, count: int, units: str = "rows") -> None:
    """Refuse delta >= 1/rows, or 1/users (Dwork and Roth 2014, section 2.3).

    Parameters
    ----------
    count : int
        How many units of privacy there are.
    units : str
        What they are called.

    Raises
    ------
    ConfigurationError
        With the bound. The message holds the count: it stays at the site.
    """
    if count < 1:
        raise ConfigurationError(
            f"{units}={count}, a private data set needs at least 1"
        )
    if not 0 < delta < 1 / count:
        raise ConfigurationError(
            f"delta={delta}, must be above 0 and below 1/{units} = {1 / count:.3g}; "
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


def _check_shares(plan: PrivacyPlan) -> None:
    for name in _SHARES:
        value = getattr(plan, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigurationError(f"{name}={value!r} is not a count")
        if value and not plan.mode.shared:
            raise ConfigurationError(
                f"{name}={value} does nothing in privacy mode {plan.mode}"
            )
    if not plan.mode.shared:
        return
    if plan.max_colluders < 1:
        raise ConfigurationError(
            "max_colluders=0: every site knows its own share of the noise, so each "
            "one's view allows less than all shares promise; at least 1"
        )
    if plan.shares < 1:
        raise ConfigurationError(
            f"min_contributors={plan.min_contributors} less max_colluders="
            f"{plan.max_colluders} leaves no share of noise to count on; at least 1"
        )
    if plan.steps_per_round != 1:
        raise ConfigurationError(
            f"steps_per_round={plan.steps_per_round}, must be 1 in {plan.mode}: noise "
            "is added once a sum, so a round is one step"
        )
    if plan.mode is Mode.SILO and plan.sample_rate != 1:
        raise ConfigurationError(
            f"sample_rate={plan.sample_rate}, must be 1 in silo: every site takes part"
        )


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
