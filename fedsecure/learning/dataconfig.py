"""The `data` section of a site's own configuration, as a checked value."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from fedsecure.errors import ConfigurationError
from fedsecure.learning.partitions import Partition
from fedsecure.trainer import JSON

NAMES = ("digits", "breast_cancer", "csv", "object")
TASKS = ("classification", "regression")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where rows come from and how they are dealt and split.

    Attributes
    ----------
    name : str
        `digits`, `breast_cancer`, `csv`, or `object`: the user's own.
    partition, alpha, labels_per_site, min_partition_size, seed : str, float, int
        See `Partition`; `seed` also decides the test rows.
    test_fraction : float
        Of each site's rows; from 0 to below 1.
    path : tuple of Path
        CSV files: one per site, or one.
    site_column, target, task : str
        Of a CSV; `task` empty: told from the target.
    user_column : str
        Of a CSV: who a row is about. All rows of one are tested or trained on together,
        dealt to one site, and one unit in privacy mode `user_distributed`.
    schema_path : str
        Public description of the columns; empty: read from the data.
    delimiter, encoding, missing, max_rows, min_rows : str, str, tuple, int, int
        How a CSV is read; `missing` lists the cells that hold no value.
    allow : tuple of str
        Features that may predict the target almost perfectly.
    root : str
        Folder that CSV files must lie in, links followed; empty: anywhere.
    require_schema : bool
        Set at a site of a federation: bounds must be declared, never read from rows.
    dataset : str
        The steward's name of the data set, for budgets; not used here.
    object : str
        ``package.module:function``; see `datasets`. Local configuration only.
    classes : int
        Of an object that returns (X, y) with whole numbers in y.
    centre_rows : bool or None
        Take off each row the mean of its own numbers; see `centring`. None: of the
        digits, whose images share most of their grey, and of nothing else.
    cache : str
        Folder for computed partitions; empty: the user's cache.
    """

    name: str = "digits"
    partition: str = "dirichlet"
    alpha: float = 0.5
    labels_per_site: int = 2
    min_partition_size: int = 10
    test_fraction: float = 0.2
    seed: int = 7
    path: tuple[str, ...] = ()
    site_column: str = ""
    user_column: str = ""
    target: str = ""
    task: str = ""
    schema_path: str = ""
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    missing: tuple[str, ...] = ("", "NA", "?")
    max_rows: int = 5_000_000
    min_rows: int = 2
    allow: tuple[str, ...] = ()
    root: str = ""
    require_schema: bool = False
    dataset: str = ""
    object: str = ""
    classes: int = 0
    centre_rows: bool | None = None
    cache: str = ""

    def __post_init__(self) -> None:
        """Refuse names that are unknown and numbers out of bounds."""
        if self.name not in NAMES:
            raise ConfigurationError(
                f"data.name={self.name!r}, choose one of: {', '.join(NAMES)}"
            )
        if not 0 <= self.test_fraction < 1:
            raise ConfigurationError(
                f"data.test_fraction={self.test_fraction}, must be from 0 to below 1"
            )
        if self.task and self.task not in TASKS:
            raise ConfigurationError(
                f"data.task={self.task!r}, choose one of: {', '.join(TASKS)}"
            )
        if len(self.delimiter) != 1:
            raise ConfigurationError(
                f"data.delimiter={self.delimiter!r}, must be one character"
            )
        for name in ("max_rows", "min_rows"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"data.{name}={getattr(self, name)}, must be at least 1"
                )
        if self.name == "object" and not self.object:
            raise ConfigurationError('data.name=object needs data.object="pkg.mod:fun"')
        if self.name == "csv" and not (self.path and self.target):
            raise ConfigurationError("data.name=csv needs data.path and data.target")
        if self.user_column and self.name != "csv":
            raise ConfigurationError(
                f"data.user_column={self.user_column!r} does nothing with data.name="
                f"{self.name}; of an object, return SiteData with train_users"
            )
        self.dealing(1)

    def dealing(self, sites: int) -> Partition:
        """Return how one data set is dealt to `sites` sites."""
        return Partition(
            kind=self.partition,
            sites=sites,
            seed=self.seed,
            alpha=self.alpha,
            labels_per_site=self.labels_per_site,
            min_partition_size=self.min_partition_size,
        )

    @property
    def centred(self) -> bool:
        """Whether rows are centred: what was said, or what suits the data set."""
        said = self.centre_rows
        return self.name == "digits" if said is None else said

    def cache_folder(self) -> Path | None:
        """Return the configured cache folder, if one is named."""
        return Path(self.cache) if self.cache else None

    @classmethod
    def read(cls, section: Mapping[str, JSON]) -> "DataConfig":
        """Return the checked section; null stands for the default.

        Raises
        ------
        ConfigurationError
            Unknown key, a value of another type, or one out of bounds.
        """
        known = {field.name: field.default for field in fields(cls)}
        for name in section:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigurationError(f"data.{name} is not an option{hint}")
        given = {k: v for k, v in section.items() if v is not None}
        values = {name: _as(name, value, known[name]) for name, value in given.items()}
        return cls(**values)  # type: ignore[arg-type]  # each checked by _as


def _as(name: str, value: JSON, default: object) -> object:
    """Return `value` in the default's type, or refuse it."""
    if isinstance(default, tuple):
        items = value if isinstance(value, list) else [value]
        texts = tuple(item for item in items if isinstance(item, str))
        if len(texts) == len(items):
            return texts
        raise ConfigurationError(f"data.{name}={value!r}, must be a list of texts")
    if isinstance(default, float) and type(value) is int:
        return float(value)
    kind = bool if default is None else type(default)
    if type(value) is kind:
        return value
    raise ConfigurationError(f"data.{name}={value!r}, must be of type {kind.__name__}")
