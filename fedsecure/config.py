"""Configuration, checked once at the door: frozen, strict, cross-field rules included.

Below this layer there are plain values only. Errors are one sentence: which key, which
value, which bound, what to do.
"""

import difflib
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError
from fedsecure.update import JSON

MAX_SITES = 93
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
_BRANCHES = ("str", "list[str]")  # of a union, as pydantic names them behind the key


def _as_text(value: object) -> object:
    return str(value) if type(value) is int else value


_S = TypeVar("_S", bound="Section")


class Section(BaseModel):
    """A part of the configuration: strict, so "3" is no number and true is no count."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(Section):
    """Which rows, and how a simulation spreads them over sites."""

    name: Literal["digits", "breast_cancer", "csv", "object"] = "digits"
    dataset: str | None = None
    partition: Literal["iid", "dirichlet", "shards", "by_size"] = "dirichlet"
    alpha: Positive = 1.0
    labels_per_site: Count = 2
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 7
    object: str | None = None
    path: str | list[str] | None = None
    site_column: str | None = None
    target: str | None = None
    task: Literal["classification", "regression"] = "classification"
    schema_path: str | None = None
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    missing: list[str] = ["", "NA", "?"]
    max_rows: Count = 5_000_000
    allow: list[str] = []
    min_rows: Count = 2
    min_partition_size: Count = 1
    classes: Annotated[int, Field(ge=0)] = 0
    root: str | None = None
    require_schema: bool = False
    cache: str | None = None

    @property
    def id(self) -> str:
        """The steward's name of the data set: budgets and policies are keyed by it."""
        return self.dataset or self.name.replace("_", "-")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.name == "csv" and (self.path is None or self.target is None):
            raise ValueError("data=csv needs data.path and data.target")
        if self.name == "object" and self.object is None:
            raise ValueError('data=object needs data.object="package.module:function"')
        return self


class ModelConfig(Section):
    """Which model."""

    name: Literal["logistic", "mlp", "cnn", "object"] = "logistic"
    hidden: list[Count] = [64]
    object: str | None = None

    @model_validator(mode="after")
    def _object_is_named(self) -> Self:
        if self.name == "object" and self.object is None:
            raise ValueError(
                'model=object needs model.object="package.module:function"'
            )
        return self

    @property
    def objects(self) -> list[str]:
        """What this configuration, being local, lets a plan import."""
        return [] if self.object is None else [self.object]


class TrainConfig(Section):
    """One local pass."""

    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Positive = 0.5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    device: str = "auto"


class PrivacyConfig(Section):
    """What is promised about the rows."""

    mode: Literal["none", "example_local"] = "none"
    target_epsilon: Positive | None = None
    noise_multiplier: Positive | None = None
    clip_norm: Positive = 1.0
    sample_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    steps_per_round: Count = 10
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    divisor: Positive | None = None
    metrics: Literal["none", "plain"] = "plain"

    @model_validator(mode="after")
    def _one_noise(self) -> Self:
        given = (self.target_epsilon, self.noise_multiplier).count(None)
        if self.mode != "none" and given != 1:
            raise ValueError(
                "set exactly one of privacy.target_epsilon and privacy.noise_multiplier"
            )
        if self.mode != "none" and self.divisor is None:
            raise ValueError(
                "privacy.divisor is missing: a public expected batch, such as 50; "
                "never a site's own row count"
            )
        return self


class EncryptionConfig(Section):
    """How updates are hidden."""

    scheme: Literal["bfv", "ckks", "insecure_plain"] = "bfv"
    profile: Annotated[Literal["20", "12", "8", "wide"], BeforeValidator(_as_text)] = (
        "20"  # a command line's 12 is a number
    )
    value_range: Positive = 1.0
    max_contributors: Annotated[int, Field(ge=1, le=MAX_SITES)] = 16


class FederationConfig(Section):
    """Who takes part, and what a round needs."""

    sites: Annotated[int, Field(ge=1, le=MAX_SITES)] = 3
    aggregators: Annotated[int, Field(ge=1, le=5)] = 2
    rounds: Count = 8
    min_contributors: Count | None = None
    deadline: Positive = 120.0
    max_rows: Annotated[int, Field(ge=0)] | None = None
    project: str = "demo"
    kits: str | None = None

    @property
    def quorum(self) -> int:
        """Sites a round needs: all of them unless said otherwise."""
        return self.min_contributors or self.sites

    @model_validator(mode="after")
    def _quorum_exists(self) -> Self:
        if self.quorum > self.sites:
            raise ValueError(
                f"federation.min_contributors={self.quorum}, at most the "
                f"{self.sites} sites"
            )
        return self


class BackendConfig(Section):
    """How the federation is run."""

    name: Literal["inprocess", "deployment", "ray"] = "inprocess"
    kill_leader_in_round: Count | None = None
    start_seconds: Positive = 120.0


class StoreConfig(Section):
    """Where checkpoints go: W of N."""

    name: Literal["local", "memory"] = "local"
    replicas: Annotated[int, Field(ge=1, le=9)] = 3
    quorum: Count = 2
    paths: list[str] | None = None
    require_distinct_devices: bool = False

    @model_validator(mode="after")
    def _quorum_fits(self) -> Self:
        if self.quorum > self.replicas:
            raise ValueError(
                f"store.quorum={self.quorum}, at most store.replicas={self.replicas}"
            )
        if self.paths is not None and len(self.paths) != self.replicas:
            raise ValueError(
                f"store.paths names {len(self.paths)} folders, "
                f"store.replicas={self.replicas}"
            )
        return self


class LeaseConfig(Section):
    """How leadership is decided."""

    name: Literal["embedded"] = "embedded"
    ttl: Annotated[float, Field(ge=0.3, le=60)] = 3.0


class RunConfig(Section):
    """All of a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    encryption: EncryptionConfig = EncryptionConfig()
    federation: FederationConfig = FederationConfig()
    backend: BackendConfig = BackendConfig()
    store: StoreConfig = StoreConfig()
    lease: LeaseConfig = LeaseConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    baselines: bool = True
    run_root: str = "runs"

    @model_validator(mode="after")
    def _sites_fit(self) -> Self:
        if self.encryption.max_contributors < self.federation.sites:
            raise ValueError(
                f"encryption.max_contributors={self.encryption.max_contributors}, at "
                f"least the {self.federation.sites} sites"
            )
        if self.privacy.mode != "none" and self.encryption.scheme == "ckks":
            raise ValueError(
                "encryption=ckks is not IND-CPA-D secure: no epsilon is claimed with "
                "it; choose encryption=bfv or privacy=none"
            )
        if self.privacy.mode != "none" and self.federation.max_rows:
            raise ValueError(
                "federation.max_rows must be 0 or unset when privacy is on: a weight "
                "by rows tells the row count"
            )
        if self.backend.name == "deployment" and self.store.name == "memory":
            raise ValueError("backend=deployment needs store=local: processes differ")
        csv = self.data.name == "csv" and self.data.schema_path is None
        if self.backend.name == "deployment" and csv:
            raise ValueError(
                "backend=deployment with data=csv needs data.schema_path, the public "
                "contract of its columns: draft one with `fedsecure data schema`"
            )
        kill = self.backend.kill_leader_in_round
        if kill is not None and kill > self.federation.rounds:
            raise ValueError(
                f"backend.kill_leader_in_round={kill}, at most the "
                f"{self.federation.rounds} rounds"
            )
        if kill is not None and self.backend.name != "deployment":
            raise ValueError("backend.kill_leader_in_round needs backend=deployment")
        if kill is not None and self.federation.aggregators < 2:
            raise ValueError(
                "backend.kill_leader_in_round needs federation.aggregators of at least "
                "2: nobody would take over"
            )
        files = self.data.path
        if isinstance(files, list) and len(files) != self.federation.sites:
            raise ValueError(
                f"data.path names {len(files)} files, one for each of the "
                f"federation.sites={self.federation.sites}; or name one file and "
                "data.site_column"
            )
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Return the checked configuration.

        Raises
        ------
        ConfigurationError
            One sentence on the first thing that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as bad:
            raise ConfigurationError(_sentence(bad)) from bad

    def document(self) -> dict[str, JSON]:
        """Return the configuration as plain JSON values."""
        values: dict[str, JSON] = self.model_dump(mode="json")
        return values

    def digest(self) -> str:
        """Return SHA-256 of the canonical configuration, hexadecimal."""
        return hashlib.sha256(canonical(self.document())).hexdigest()


class AggregatorConfig(Section):
    """What an aggregator's daemon needs beside its kit: ``aggregator.json``.

    Attributes
    ----------
    plan : dict
        The run's plan document.
    deadline : float
        Seconds a round stays open.
    lease : str
        Folder of the embedded engine, shared by the aggregators of the machine.
    stores : list of str
        Checkpoint folders.
    """

    plan: dict[str, Any]
    deadline: Positive
    lease: str
    ttl: Annotated[float, Field(ge=0.3, le=60)]
    stores: list[str]
    quorum: Count
    require_distinct_devices: bool = False


class NodeConfig(Section):
    """What a site's daemon needs beside its kit: ``node.json``; local, never sent.

    Attributes
    ----------
    data : DataConfig
        The site's rows.
    index, sites : int
        Which part of a simulated partition; 0 of 1 for a site's own file.
    device : str
        "auto", "cpu", "cuda:1".
    objects : list of str
        Functions a plan may name as its model here: ``package.module:function``.
    """

    data: DataConfig
    index: Annotated[int, Field(ge=0)] = 0
    sites: Count = 1
    device: str = "auto"
    objects: list[str] = []


def parse_section(kind: type[_S], values: object, where: Path) -> _S:
    """Return a checked file of one section.

    Raises
    ------
    ConfigurationError
        Names the file and the first thing that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as bad:
        raise ConfigurationError(f"{where}: {_sentence(bad)}") from bad


def _sentence(bad: ValidationError) -> str:
    error = bad.errors(include_url=False)[0]
    location = [str(part) for part in error["loc"] if part not in _BRANCHES]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_meant(location)}"
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key} is missing"
    value = error.get("input")
    shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
    if error["type"] == "model_type":
        return f"{key}={shown}, must be a section of keys{_meant([*location, ''])}"
    bound = str(error["msg"]).removeprefix("Input should be ")
    return f"{key}={shown}, must be {bound}"


def _meant(location: list[str]) -> str:
    section: Any = RunConfig
    for part in location[:-1]:
        fields = getattr(section, "model_fields", {})
        section = fields[part].annotation if part in fields else None
    return _hint(location[-1], list(getattr(section, "model_fields", {})))


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(known)}" if known else ""
