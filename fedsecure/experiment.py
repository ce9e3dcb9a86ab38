"""Hydra overrides become a checked run, its baselines and its folder."""

import json
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml import YAML

from fedsecure import registry
from fedsecure.access.kit import read_kit
from fedsecure.access.roster import Role, Roster
from fedsecure.announcement import announced, private_plan_of
from fedsecure.backends import Backend, Event, Job, Outcome
from fedsecure.baselines import plainly, unprotected, with_local_noise
from fedsecure.certificate.issue import certify
from fedsecure.certificate.issuer import issuer_of_kit, keep_issuer
from fedsecure.certificate.traces import PLAN, traces_of_folder
from fedsecure.checkpoint.devices import shared_devices
from fedsecure.composition import shown
from fedsecure.config import RunConfig
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, LedgerCorrupt
from fedsecure.learning.datasets import SiteData, load_pooled, load_site
from fedsecure.learning.training import LocalTrainer, central_training
from fedsecure.ledger import Record, verify_ledger
from fedsecure.notes import data_notes, run_notes
from fedsecure.planning import (
    counts_plan,
    encryption_section,
    event_of,
    private_plan,
)
from fedsecure.privacy.plan import Mode, check_delta
from fedsecure.privacy.promise import promises
from fedsecure.protected import encryption_facts, privacy_facts
from fedsecure.provision.kits import provision, write_policy
from fedsecure.report import write_report
from fedsecure.summary import Digest, digest
from fedsecure.update import JSON

Show = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that reached its end: where it lies, and its summary."""

    folder: Path
    summary: Mapping[str, JSON]


def run_experiment(config: RunConfig, show: Show) -> Finished:
    """Carry out a run and leave its folder.

    Raises
    ------
    FedsecureError
        Configuration errors before anything is made; others leave what was durable.
    """
    parts = _simulated(config)
    with tempfile.TemporaryDirectory(prefix="fed-") as scratch:
        kits = _kits(config, Path(scratch))
        plan = make_plan(config, kits, parts)
        backend: Backend = registry.load("backends", config.backend.name).create({})
        folder = _folder(config, plan)
        job = Job(config, plan, kits, folder, show)
        for event in announced(config, plan, _size(config, parts, plan)):
            show(event)
        try:
            outcome = backend.run(job)
        except ConfigurationError:
            shutil.rmtree(folder)  # nothing ran: nothing half-made stays
            raise
        tables = digest(outcome, plan)
        summary = _summary(
            config, plan, outcome, tables, _baselines(config, parts, job)
        )
        uncertified = _certify(job)
    notes = [*data_notes(parts), *_list(summary["notes"]), *uncertified]
    summary["notes"] = notes
    write_report(folder, summary, tables.rounds, tables.timeline)
    return Finished(folder, summary)


def prepare(config: RunConfig, scratch: Path) -> tuple[Path, dict[str, JSON]]:
    """Return the kits and the plan of a run, for one that starts it in its own way.

    Parameters
    ----------
    scratch : Path
        Where kits are made, unless the configuration names some.
    """
    parts = _simulated(config)
    kits = _kits(config, scratch)
    return kits, make_plan(config, kits, parts)


def make_plan(
    config: RunConfig, kits: Path, parts: Sequence[SiteData]
) -> dict[str, JSON]:
    """Return the plan document of a run.

    Raises
    ------
    ConfigurationError
        More sites than kits, or privacy that cannot be kept.
    """
    roster = _roster(kits)
    sites = [member.name for member in roster.of(Role.SITE)]
    wanted = config.federation.sites
    if wanted > len(sites):
        raise ConfigurationError(
            f"federation.sites={wanted}, {kits} holds kits for {len(sites)}: provision "
            "more or ask for fewer"
        )
    cohort: list[JSON] = list(sites[:wanted])
    privacy, counts = private_plan(config), counts_plan(config)
    settings: dict[str, JSON] = {
        "seed": config.seed,
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"device"}),
        "privacy": privacy.document(),
    }
    return {
        **settings,
        **({} if counts is None else {"counts": counts.document()}),
        "format": 1,
        "federation": roster.federation,
        "run": f"run-{uuid.uuid4().hex[:12]}",
        "project": config.federation.project,
        "dataset": config.data.id,
        "rounds": config.federation.rounds,
        "sites": cohort,
        "custodians": cohort,
        "min_contributors": config.federation.quorum,
        "metrics": config.privacy.metrics,
        "max_rows": _max_rows(config, parts),
        "encryption": encryption_section(config, privacy, parts, settings),
    }


def _simulated(config: RunConfig) -> list[SiteData]:
    """Load every site's part, so that bad data is found before anything is made."""
    values, count = config.data.model_dump(), config.federation.sites
    parts = [load_site(values, index, count) for index in range(count)]
    if config.privacy.mode != "none":
        for part in parts:
            rows, mode = len(part.train_y), Mode(config.privacy.mode)
            check_delta(config.privacy.delta, mode.units(rows, part.users))
    return parts


def _max_rows(config: RunConfig, parts: Sequence[SiteData]) -> int:
    if config.privacy.mode != "none":
        return 0
    if config.federation.max_rows is not None:
        return config.federation.max_rows
    return max(len(part.train_y) for part in parts)


def _kits(config: RunConfig, scratch: Path) -> Path:
    if config.federation.kits is not None:
        return Path(config.federation.kits)
    federation = config.federation
    ports = _free_ports(federation.aggregators)
    members: dict[str, object] = {
        "name": "simulation",
        "aggregators": [
            {
                "name": f"agg-{i + 1}",
                "host": "127.0.0.1",
                "port": ports[i],
                "organisation": "simulation",
            }
            for i in range(federation.aggregators)
        ],
        "sites": [
            {"name": f"site-{i + 1:02d}", "organisation": f"site {i + 1}"}
            for i in range(federation.sites)
        ],
    }
    description = scratch / "federation.yaml"
    YAML(typ="safe").dump(members, description)
    kits = scratch / "kits"
    now = datetime.now(UTC)
    provision(description, kits, now)
    for i in range(federation.sites):
        name = f"site-{i + 1:02d}"
        write_policy(kits / name, [_simulated_policy(config)], name, now)
    return kits


def _free_ports(count: int) -> list[int]:
    """Return loopback ports nobody listens at now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _simulated_policy(config: RunConfig) -> dict[str, object]:
    """Return the project rules a simulated steward signs: what the run asks."""
    return {
        "id": config.federation.project,
        "datasets": [config.data.id],
        "schemes": [config.encryption.scheme],
        "privacy": {
            "modes": [config.privacy.mode],
            "min_noise_multiplier": 0.1,
            "max_epsilon": 1000.0,
            "delta": config.privacy.delta,
            "max_sample_rate": 1.0,
        },
        "update": {"max_bytes": 1 << 30, "max_l2_norm": 1e6},
        "runs": {"max_rounds": config.federation.rounds},
        "metrics": config.privacy.metrics,
        "open_layers": bool(config.encryption.encrypt_layers),
    }


def _roster(kits: Path) -> Roster:
    folders = sorted(p.parent for p in kits.glob("*/kit.json"))
    if not folders:
        raise ConfigurationError(
            f"federation.kits={kits} holds no kit: make them with `fedsecure provision`"
        )
    return read_kit(folders[0], SystemDisk(), lambda p: p.stat().st_mode).roster


def _folder(config: RunConfig, plan: Mapping[str, JSON]) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{str(plan['run'])[-6:]}"
    folder = Path(config.run_root).absolute() / name
    folder.mkdir(parents=True)
    text = f"# config digest {config.digest()}\n{shown(config)}"
    (folder / "resolved.yaml").write_text(text, encoding="utf-8")
    (folder / PLAN).write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    return folder


def _baselines(
    config: RunConfig, parts: Sequence[SiteData], job: Job
) -> dict[str, JSON]:
    """Train the same without protection, with local noise, and centrally."""
    names = (
        "unprotected_accuracy",
        "local_noise_accuracy",
        "centralised_accuracy",
    )
    if not config.baselines:
        return dict.fromkeys(names)
    privacy, local = private_plan_of(job.plan), None
    if privacy is not None:
        said = promises(privacy, [event_of(privacy, privacy.rounds)])
        local = with_local_noise(config, said[0].enforced.epsilon)
    pooled = load_pooled(config.data.model_dump(), len(parts))
    settings = {**_settings(job.plan), "train": _trained(plainly(config))}
    central = central_training(
        pooled, settings, config.federation.rounds, objects=config.model.objects
    )
    found = (
        _accuracy(unprotected(config), parts),
        _accuracy(local, parts),
        central[-1].get("accuracy"),
    )
    return dict(zip(names, found, strict=True))


def _certify(job: Job) -> list[JSON]:
    """Have the first site certify the run; return why not, if it did not.

    Kits made for the run end here: what is needed to sign again stays in its folder.
    """
    issuer = issuer_of_kit(job.kits / str(_list(job.plan["sites"])[0]))
    if job.config.federation.kits is None:
        keep_issuer(issuer, job.folder)
    try:
        traces = traces_of_folder(job.folder, issuer.roster)
        certify(traces, issuer, datetime.now(UTC), job.folder)
    except LedgerCorrupt as bad:
        return [f"This run has no privacy certificate: {bad}"]
    return []


def _trained(train: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a section on training as plans have it: where to compute is no part."""
    return {key: value for key, value in train.items() if key != "device"}


def _accuracy(config: RunConfig | None, parts: Sequence[SiteData]) -> JSON:
    """Return the final accuracy of a run in this process that leaves nothing."""
    if config is None:
        return None
    with tempfile.TemporaryDirectory(prefix="fed-") as scratch:
        kits = _kits(config, Path(scratch))
        plan = make_plan(config, kits, parts)
        backend: Backend = registry.load("backends", "inprocess").create({})
        folder = Path(scratch) / "run"
        outcome = backend.run(Job(config, plan, kits, folder, lambda _: None))
    final = digest(outcome, plan).totals["final"]
    return final.get("accuracy") if isinstance(final, dict) else None


def _settings(plan: Mapping[str, JSON]) -> dict[str, JSON]:
    return {k: plan[k] for k in ("model", "train", "privacy", "seed")}


def _summary(
    config: RunConfig,
    plan: Mapping[str, JSON],
    outcome: Outcome,
    tables: Digest,
    baseline: Mapping[str, JSON],
) -> dict[str, JSON]:
    ledgers, broken = _verify(outcome)
    stores = [Path(path) for path in config.store.paths or [config.run_root] * 2]
    shared = config.store.name == "local" and bool(shared_devices(stores))
    parameters = int(str(tables.totals["parameters"]))
    return {
        "run_id": plan["run"],
        "backend": config.backend.name,
        "sites": config.federation.sites,
        "aggregators": config.federation.aggregators,
        "scheme": config.encryption.scheme,
        **tables.totals,
        "baseline": dict(baseline),
        "privacy": privacy_facts(plan, outcome, ledgers, parameters),
        "encryption": encryption_facts(plan, parameters),
        "ledgers_verified": not broken,
        "ledgers": {owner: len(records) for owner, records in ledgers.items()},
        "notes": [*broken, *run_notes(config, shared=shared)],
    }


def _verify(
    outcome: Outcome,
) -> tuple[dict[str, tuple[Record, ...]], list[JSON]]:
    ledgers: dict[str, tuple[Record, ...]] = {}
    broken: list[JSON] = []
    for owner, path in outcome.ledgers.items():
        try:
            ledgers[owner] = verify_ledger(path, SystemDisk())
        except LedgerCorrupt as bad:
            broken.append(f"ledger of {owner}: {bad}")
    return ledgers, broken


def _size(
    config: RunConfig, parts: Sequence[SiteData], plan: Mapping[str, JSON]
) -> int:
    """Return the model's parameters; 0 where no rows are here."""
    if not parts:
        return 0
    trainer = LocalTrainer(parts[0], objects=config.model.objects)
    return trainer.initial(_settings(plan))[0].num_parameters


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []
