"""The sections of the configuration on where a run is carried out and kept.

What a run does is in `sections`; rules that need two sections are in `config`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedsecure.sections import Count, DataConfig, Positive, Section
from fedsecure.update import JSON


class BackendConfig(Section):
    """How the federation is run."""

    name: Literal["inprocess", "deployment", "ray"] = "inprocess"
    kill_leader_in_round: Count | None = None
    start_seconds: Positive = 120.0


class BucketConfig(Section):
    """One copy of the checkpoints in S3; credentials are never in here.

    Attributes
    ----------
    credentials : str
        A file of mode 0600 in AWS's form; null: from AWS_ACCESS_KEY_ID and
        AWS_SECRET_ACCESS_KEY.
    ca : str
        A file of PEM certificates of a private authority.
    timeout : float
        Seconds of one request.
    """

    url: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    credentials: str | None = None
    ca: str | None = None
    timeout: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 4
    allow_http: bool = False

    @property
    def shown(self) -> str:
        """The bucket's place, as people and errors name it."""
        return f"{self.url}/{self.bucket}/{self.prefix}"


class RetentionConfig(Section):
    """Which complete runs `fedsecure checkpoint gc` leaves in the stores.

    A run stays if any of the three rules keeps it, and always before it is complete.

    Attributes
    ----------
    last : int
        The newest ones.
    days : float
        Those that ended within so many days.
    every : float
        Of the others, the newest in each period of so many days; 0: none of them.
    grace_hours : float
        How long an object that no manifest names is left alone.
    """

    last: Annotated[int, Field(ge=0)] = 10
    days: Annotated[float, Field(ge=0)] = 30.0
    every: Annotated[float, Field(ge=0)] = 0.0
    grace_hours: Annotated[float, Field(ge=1)] = 24.0


class KekConfig(Section):
    """The key-encryption key of checkpoints; no secret is in here.

    Attributes
    ----------
    name : str
        ``file``: the box keys of the aggregators' kits; ``pkcs11``: one AES key in a
        token, which all aggregators of the run can use.
    module : str
        Path of the token's PKCS#11 library.
    token, label : str
        The token's label and the key's.
    pin_file, pin_credential : str
        A file of mode 0600, or the name of a systemd credential, that holds the PIN.
    """

    name: Literal["file", "pkcs11"] = "file"
    module: str | None = None
    token: str | None = None
    label: str | None = None
    pin_file: str | None = None
    pin_credential: str | None = None

    @model_validator(mode="after")
    def _token_is_named(self) -> Self:
        named = self.settings()
        if self.name == "file" and named:
            raise ValueError(
                f"kek={', '.join(named)} does nothing with kek.name=file: set "
                "kek.name=pkcs11, or take it out"
            )
        if self.name == "pkcs11":
            missing = [k for k in ("module", "token", "label") if k not in named]
            pins = [k for k in ("pin_file", "pin_credential") if k in named]
            if missing or len(pins) != 1:
                raise ValueError(
                    "kek.name=pkcs11 needs kek.module, kek.token, kek.label and one of "
                    f"kek.pin_file and kek.pin_credential; it has {', '.join(named)}"
                )
        return self

    def settings(self) -> dict[str, JSON]:
        """Return what is set beside the name."""
        return dict(self.model_dump(exclude_none=True, exclude={"name"}))


class StoreConfig(Section):
    """Where checkpoints go: W of N.

    Attributes
    ----------
    scrub_mb_per_s : float
        10^6 bytes a second at which the leader reads all copies again; 0: never.
    carry_from_mb : float
        10^6 bytes from which on a standby carries releases to sites; 0: all of them.
    keep : RetentionConfig
        What `fedsecure checkpoint gc` leaves.
    kek : KekConfig
        What the keys of new checkpoints are sealed under.
    kek_before : list of KekConfig
        Keys in tokens that older checkpoints are still under; the kit's own key
        always opens.
    """

    name: Literal["local", "memory", "s3"] = "local"
    replicas: Annotated[int, Field(ge=1, le=9)] = 3
    quorum: Count = 2
    paths: list[str] | None = None
    buckets: list[BucketConfig] = Field(default_factory=list)
    require_distinct_devices: bool = False
    scrub_mb_per_s: Annotated[float, Field(ge=0, le=100_000)] = 10.0
    carry_from_mb: Annotated[float, Field(ge=0, le=1e6)] = 8.0
    keep: RetentionConfig = RetentionConfig()
    kek: KekConfig = KekConfig()
    kek_before: list[KekConfig] = Field(default_factory=list)

    @model_validator(mode="after")
    def _quorum_fits(self) -> Self:
        if self.quorum > self.replicas:
            raise ValueError(
                f"store.quorum={self.quorum}, at most store.replicas={self.replicas}"
            )
        places = {bucket.shown for bucket in self.buckets}
        if self.name == "s3" and len(places) != self.replicas:
            raise ValueError(
                f"store.buckets names {len(places)} different places, "
                f"store.replicas={self.replicas}"
            )
        if self.name != "s3" and self.buckets:
            raise ValueError("store.buckets does nothing without store=s3")
        if self.paths is not None and len(self.paths) != self.replicas:
            raise ValueError(
                f"store.paths names {len(self.paths)} folders, "
                f"store.replicas={self.replicas}"
            )
        return self


class LeaseConfig(Section):
    """How leadership is decided."""

    name: Literal["embedded", "postgresql", "etcd"] = "embedded"
    ttl: Annotated[float, Field(ge=0.3, le=60)] = 3.0
    url: str | None = None
    database_schema: str = "fedsecure"
    passfile: str | None = None
    endpoints: list[str] = Field(default_factory=list)
    prefix: str = "/fedsecure/"
    ca_cert: str | None = None
    cert: str | None = None
    key: str | None = None
    timeout: Positive | None = None
    max_skew: Positive = 5.0
    insecure_plain: bool = False

    @model_validator(mode="after")
    def _server_is_named(self) -> Self:
        if self.name == "postgresql" and self.url is None:
            raise ValueError(
                "lease=postgresql needs lease.url=postgresql://user@host/database; the "
                "password is in lease.passfile"
            )
        if self.timeout is not None and self.timeout > self.ttl / 2:
            raise ValueError(
                f"lease.timeout={self.timeout}, at most half of lease.ttl={self.ttl}: "
                "a leader must be able to ask twice before its lease ends"
            )
        if self.name == "etcd" and self.ttl < 2:
            raise ValueError(f"lease.ttl={self.ttl}, at least 2 s with etcd")
        if self.name == "etcd" and not self.endpoints:
            raise ValueError("lease=etcd needs lease.endpoints, every member's url")
        return self

    def settings(self, folder: str) -> dict[str, JSON]:
        """Return the engine's own settings.

        Parameters
        ----------
        folder : str
            Where the embedded engine lies.
        """
        limits: dict[str, JSON] = {"max_skew": self.max_skew}
        if self.timeout is not None:
            limits["timeout"] = self.timeout
        if self.name == "embedded":
            return {"path": folder}
        if self.name == "postgresql":
            return {
                **limits,
                "url": self.url,
                "schema": self.database_schema,
                "passfile": self.passfile,
                "insecure_plain": self.insecure_plain,
            }
        paths = {"ca_cert": self.ca_cert, "cert": self.cert, "key": self.key}
        return {
            **limits,
            **{name: path for name, path in paths.items() if path is not None},
            "endpoints": list(self.endpoints),
            "prefix": self.prefix,
            "insecure_plain": self.insecure_plain,
        }


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
    stores : list of str or BucketConfig
        Checkpoint folders and buckets.
    engine : LeaseConfig
        Which engine; its `ttl` is not read here.
    scrub_mb_per_s : float
        10^6 bytes a second at which the leader reads all copies again; 0: never.
    carry_from_mb : float
        10^6 bytes from which on a standby carries releases to sites; 0: all of them.
    keep : RetentionConfig
        What `fedsecure checkpoint gc` leaves.
    kek, kek_before : KekConfig
        As in `StoreConfig`.
    code_before : list of str
        Digests of the code whose rounds this version may go on from: an upgrade.
    """

    plan: dict[str, Any]
    deadline: Positive
    lease: str
    ttl: Annotated[float, Field(ge=0.3, le=60)]
    stores: list[str | BucketConfig]
    quorum: Count
    require_distinct_devices: bool = False
    engine: LeaseConfig = LeaseConfig()
    scrub_mb_per_s: Annotated[float, Field(ge=0, le=100_000)] = 10.0
    carry_from_mb: Annotated[float, Field(ge=0, le=1e6)] = 8.0
    keep: RetentionConfig = RetentionConfig()
    kek: KekConfig = KekConfig()
    kek_before: list[KekConfig] = Field(default_factory=list)
    code_before: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default_factory=list
    )

    @property
    def folders(self) -> list[Path]:
        """Checkpoint folders of this machine."""
        return [Path(store) for store in self.stores if isinstance(store, str)]


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
    objects: list[str] = Field(default_factory=list)
