"""The sections of the configuration: frozen, strict, each checked by itself.

What a run does; where it is done is in `placement`, and rules that need two sections
are in `config`.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from fedsecure.update import JSON

MAX_SITES = 93
PLAIN_PROFILE, PRIVATE_PROFILE = "8", "20"
"""The default without and with an epsilon claimed (experiments/utility)."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _as_text(value: object) -> object:
    return str(value) if type(value) is int else value


def default_threshold(sites: int, min_contributors: int) -> int:
    """Return how many sites' shares open the masks of a round.

    floor(2 n / 3) + 1 as in Bonawitz et al. (CCS 2017, section 6.2), so that an
    aggregator that lies about who answered needs a third of the sites with it; at most
    the contributors a round needs, for more could not be reached.
    """
    return min(2 * sites // 3 + 1, min_contributors)


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
    user_column: str | None = None
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
    centre_rows: bool | None = None
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
        if self.user_column and self.name != "csv":
            raise ValueError(f"data.user_column does nothing with data={self.name}")
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
    engine: Literal["auto", "bookkeeping", "ghost", "hooks", "functorch"] = "auto"


class PrivacyConfig(Section):
    """What is promised about the rows."""

    mode: Literal[
        "none", "example_distributed", "user_distributed", "example_local", "silo"
    ] = "none"
    target_epsilon: Positive | None = None
    noise_multiplier: Positive | None = None
    clip_norm: Positive = 1.0
    sample_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    steps_per_round: Count = 10
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    divisor: Positive | None = None
    max_colluders: Count = 1
    metrics: Literal["none", "dp", "plain"] = "plain"
    metrics_epsilon: Positive | None = None
    metrics_each_round: bool = False

    @property
    def counts_epsilon(self) -> float | None:
        """What metrics=dp may cost by itself; a quarter of the target unless given."""
        if self.metrics_epsilon is not None or self.target_epsilon is None:
            return self.metrics_epsilon
        return self.target_epsilon / 4

    @model_validator(mode="after")
    def _counts_are_paid_for(self) -> Self:
        if self.metrics != "dp":
            if self.metrics_epsilon is not None or self.metrics_each_round:
                raise ValueError(
                    "privacy.metrics_epsilon and privacy.metrics_each_round do "
                    f"nothing with privacy.metrics={self.metrics}: leave them, or set "
                    "privacy.metrics=dp"
                )
            return self
        if self.mode == "none":
            raise ValueError(
                "privacy.metrics=dp needs a privacy mode, whose budget pays for the "
                "counts: choose one, or privacy.metrics=none or plain"
            )
        if self.mode not in {"example_distributed", "example_local"}:
            raise ValueError(
                f"privacy.metrics=dp hides one row of a count, mode {self.mode} "
                "protects more than one: choose privacy.metrics=none or plain"
            )
        if self.counts_epsilon is None:
            raise ValueError(
                "privacy.metrics=dp with privacy.noise_multiplier needs "
                "privacy.metrics_epsilon, what the counts may cost by themselves"
            )
        if self.target_epsilon and self.counts_epsilon >= self.target_epsilon:
            raise ValueError(
                f"privacy.metrics_epsilon={self.counts_epsilon}, must be below "
                f"privacy.target_epsilon={self.target_epsilon}: the model needs the "
                "rest"
            )
        return self

    @model_validator(mode="after")
    def _one_step(self) -> Self:
        if self.mode not in {"none", "example_local"} and self.steps_per_round != 1:
            raise ValueError(
                f"privacy.steps_per_round={self.steps_per_round}, must be 1 with mode "
                f"{self.mode}: a round is one step; set federation.rounds instead"
            )
        return self

    @model_validator(mode="after")
    def _one_noise(self) -> Self:
        given = (self.target_epsilon, self.noise_multiplier).count(None)
        if self.mode != "none" and given != 1:
            raise ValueError(
                "set exactly one of privacy.target_epsilon and privacy.noise_multiplier"
            )
        return self


class EncryptionConfig(Section):
    """How updates are hidden; null: chosen from sites and privacy, see `document`."""

    scheme: Literal["bfv", "ckks", "insecure_plain"] = "bfv"
    profile: Annotated[
        Literal["20", "12", "8", "wide"] | None, BeforeValidator(_as_text)
    ] = None  # a command line's 12 is a number
    value_range: Positive = 1.0
    range_from: Literal["config", "aggregate"] | None = None
    range_multiple: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    rounding: Literal["nearest", "stochastic"] | None = None
    error_feedback: bool | None = None
    max_contributors: Annotated[int, Field(ge=1, le=MAX_SITES)] = 16
    downlink: Literal["auto", "sum", "seeds"] = "auto"
    link_mbps: Positive = 100.0
    masking: Literal["none", "pairwise"] | None = None
    masking_threshold: Annotated[int, Field(ge=2, le=MAX_SITES)] | None = None
    encrypt_layers: list[str] | None = None

    def document(
        self, sites: int, min_contributors: int, *, private: bool
    ) -> dict[str, JSON]:
        """Return the section of a run's plan: every open choice is made.

        Masks from three sites on, for with two there is nothing to hide; narrow fields,
        moving ranges and stochastic rounding only where no epsilon is claimed.
        """
        masking, threshold = self.masking, self.masking_threshold
        if masking is None:
            hidden = self.scheme != "insecure_plain"
            able = sites >= 3 and min_contributors >= 2
            masking = "pairwise" if hidden and able else "none"
        if masking == "pairwise" and threshold is None:
            threshold = default_threshold(sites, min_contributors)
        plain = not private
        feedback = plain if self.error_feedback is None else self.error_feedback
        return {
            "scheme": self.scheme,
            "profile": self.profile or (PLAIN_PROFILE if plain else PRIVATE_PROFILE),
            "value_range": self.value_range,
            "range_from": self.range_from or ("aggregate" if plain else "config"),
            "range_multiple": self.range_multiple,
            "rounding": self.rounding or ("stochastic" if plain else "nearest"),
            "error_feedback": feedback,
            "max_contributors": self.max_contributors,
            "downlink": self.downlink,
            "link_mbps": self.link_mbps,
            "masking": masking,
            "masking_threshold": threshold or 0,
            "encrypt_layers": list(self.encrypt_layers or []),
        }


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
