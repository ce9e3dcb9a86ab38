"""Configuration, checked once at the door: cross-section rules, and errors.

Below this layer there are plain values only. Errors are one sentence: which key, which
value, which bound, what to do.
"""

import difflib
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError
from fedsecure.placement import (
    AggregatorConfig,
    BackendConfig,
    LeaseConfig,
    NodeConfig,
    StoreConfig,
)
from fedsecure.sections import (
    DataConfig,
    EncryptionConfig,
    FederationConfig,
    ModelConfig,
    PrivacyConfig,
    Section,
    TrainConfig,
)
from fedsecure.update import JSON

__all__ = ["AggregatorConfig", "NodeConfig", "RunConfig", "Section", "parse_section"]

_BRANCHES = ("str", "list[str]")  # of a union, as pydantic names them behind the key
_S = TypeVar("_S", bound=Section)
_PUBLIC_ROWS = {"digits": 1400, "breast_cancer": 450}
"""Rows to train on of all sites together, of data that is no secret; rounded."""


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
    def _users_are_told_apart(self) -> Self:
        told = self.data.user_column or self.data.name == "object"
        if self.privacy.mode == "user_distributed" and not told:
            raise ValueError(
                "privacy.mode=user_distributed needs data.user_column, the column of a "
                "csv that says whose a row is"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_count(self) -> Self:
        if self.privacy.metrics == "dp" and self.data.task == "regression":
            raise ValueError(
                "privacy.metrics=dp counts correctly classified rows, and "
                "data.task=regression has none: choose privacy.metrics=none or plain"
            )
        return self

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

    @model_validator(mode="after")
    def _batch_is_public(self) -> Self:
        if self.privacy.mode != "none" and self.divisor is None:
            raise ValueError(
                f"privacy.divisor is missing and data={self.data.name} brings none: "
                f"set it to a public expected batch of {self._whose}, such as "
                "privacy.sample_rate times the rows that may be known; never a row "
                "count that is a secret. Or choose privacy=none"
            )
        return self

    @property
    def divisor(self) -> float | None:
        """What a step's noisy sum is divided by; None: nobody said, and data is secret.

        A public expected batch. Where examples share noise it is that of all sites
        together, which rows that are public bring; else `privacy.divisor` alone.
        """
        asked, public = self.privacy, _PUBLIC_ROWS.get(self.data.name)
        if asked.divisor is not None or asked.mode != "example_distributed":
            return asked.divisor
        return None if public is None else asked.sample_rate * public

    @property
    def _whose(self) -> str:
        one = {"example_local": "one site", "silo": "sites"}
        return one.get(self.privacy.mode, "all sites together")

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
            raise ConfigurationError(_sentence(bad, RunConfig)) from bad

    def document(self) -> dict[str, JSON]:
        """Return the configuration as plain JSON values."""
        values: dict[str, JSON] = self.model_dump(mode="json")
        return values

    def digest(self) -> str:
        """Return SHA-256 of the canonical configuration, hexadecimal."""
        return hashlib.sha256(canonical(self.document())).hexdigest()


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
        raise ConfigurationError(f"{where}: {_sentence(bad, kind)}") from bad


def _sentence(bad: ValidationError, root: type[Section]) -> str:
    error = bad.errors(include_url=False)[0]
    location = [str(part) for part in error["loc"] if part not in _BRANCHES]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_meant(root, location)}"
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key} is missing"
    value = error.get("input")
    shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
    if error["type"] == "model_type":
        return (
            f"{key}={shown}, must be a section of keys{_meant(root, [*location, ''])}"
        )
    bound = str(error["msg"]).removeprefix("Input should be ")
    return f"{key}={shown}, must be {bound}"


def _meant(root: type[Section], location: list[str]) -> str:
    section: Any = root
    for part in location[:-1]:
        fields = getattr(section, "model_fields", {})
        section = fields[part].annotation if part in fields else None
    return _hint(location[-1], list(getattr(section, "model_fields", {})))


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(known)}" if known else ""
