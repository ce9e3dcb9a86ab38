"""The plan's `train` section and seed, checked where they are used."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from fedsecure.errors import ConfigurationError
from fedsecure.trainer import JSON


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The plan's `train` section.

    Attributes
    ----------
    epochs : int
        Passes over the site's rows in one round; nothing in a private round, whose
        steps the privacy plan counts.
    batch_size : int
        Rows of a step; likewise.
    learning_rate, momentum : float
        Of SGD, which starts anew each round.
    device : str
        Where a site that says "auto" trains.
    engine : str
        How clipped sums are made in a private round; no part of the privacy event.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.5
    momentum: float = 0.0
    device: str = "auto"
    engine: str = "auto"

    @classmethod
    def read(cls, section: JSON) -> "TrainSettings":
        """Return the checked section.

        Raises
        ------
        ConfigurationError
            Unknown key, or a value out of bounds.
        """
        if not isinstance(section, Mapping):
            raise ConfigurationError("plan section train is not a mapping")
        unknown = sorted(set(section) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigurationError(f"train: unknown options {unknown}")
        device = section.get("device", "auto")
        return cls(
            int(_bounded(section, "epochs", cls(), (1, 10_000), whole=True)),
            int(_bounded(section, "batch_size", cls(), (1, 10**9), whole=True)),
            _bounded(section, "learning_rate", cls(), (1e-12, 1e6)),
            _bounded(section, "momentum", cls(), (0.0, 0.9999)),
            str(device),
            str(section.get("engine", "auto")),
        )


def read_seed(settings: Mapping[str, JSON]) -> int:
    """Return the plan's seed.

    Raises
    ------
    ConfigurationError
        Missing, not whole, or outside [0, 2**53).
    """
    value = settings.get("seed")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"seed={value!r} is not a whole number")
    if value != int(value) or not 0 <= value < 2**53:
        raise ConfigurationError(f"seed={value}, must be whole, from 0 to 2**53 - 1")
    return int(value)


def _bounded(
    section: Mapping[str, JSON],
    name: str,
    default: TrainSettings,
    bounds: tuple[float, float],
    *,
    whole: bool = False,
) -> float:
    value = section.get(name, getattr(default, name))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"train.{name}={value!r} is not a number")
    if not bounds[0] <= value <= bounds[1] or (whole and value != int(value)):
        raise ConfigurationError(
            f"train.{name}={value}, must be from {bounds[0]} to {bounds[1]}"
            f"{' and whole' if whole else ''}"
        )
    return float(value)
