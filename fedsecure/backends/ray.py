"""Flower's official simulation engine: more sites than one process, or one machine.

A worker of the engine may serve any site, so a site's half is opened for each message
from its folder and closed again: slower than `inprocess`, the same state machine, and
the same bytes. The folder of the run must be seen by all machines of the cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsecure import registry
from fedsecure.access.kit import read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import (
    Surroundings,
    aggregator_config,
    build_strategy,
)
from fedsecure.assembly.node import build_round, fingerprint, privacy_history
from fedsecure.assembly.places import open_engine, open_stores
from fedsecure.backends import Backend, Job, Outcome
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError
from fedsecure.flower.link import asked_nodes, run_on_ray
from fedsecure.flower.mod import client_app
from fedsecure.flower.post import Directory, Grid, Timing
from fedsecure.flower.strategy import server_app
from fedsecure.learning.datasets import load_site
from fedsecure.learning.training import LocalTrainer
from fedsecure.monitor.observer import read_lines
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.budget import Content
from fedsecure.update import JSON

_TIMING = Timing(poll=0.1, retry=1.0)


@dataclass(frozen=True, slots=True)
class _Sites:
    """All sites, as plain values an engine can send to its workers."""

    kits: str
    folder: str
    names: tuple[str, ...]
    data: dict[str, JSON]
    device: str
    objects: tuple[str, ...]

    def name(self, node_config: Mapping[str, object]) -> str:
        """Return the site a node of the simulation stands for."""
        return self.names[int(str(node_config["partition-id"]))]

    def answer(self, node_config: Mapping[str, object], data: bytes) -> Outgoing:
        """Open the site, answer one message, close it."""
        name = self.name(node_config)
        index, state = self.names.index(name), Path(self.folder) / "sites" / name
        kit = read_kit(Path(self.kits) / name, SystemDisk(), _mode)
        rows = load_site(self.data, index, len(self.names))
        trainer = LocalTrainer(
            rows, device=self.device, index=index, objects=self.objects
        )
        dataset = str(self.data["dataset"])
        key = fingerprint(kit, rows.digest())
        content = Content(dataset, key, trainer.rows(), trainer.users())
        store = registry.load("stores", "local").create({"path": state / "shelf"})
        half = build_round(kit, content, store, state)
        try:
            return half.answer(data, trainer)
        finally:
            half.close()


class Ray:
    """A federation on ray."""

    def run(self, job: Job) -> Outcome:
        """Carry a run out with one aggregator; see `Backend`."""
        if job.config.store.name == "memory":
            raise ConfigurationError(
                "backend=ray needs another store than memory: its workers are "
                "processes of their own"
            )
        sites = _sites(job)
        first = read_kit(job.kits / sites.names[0], SystemDisk(), _mode)
        name = first.roster.of(Role.AGGREGATOR)[0].name
        kit = read_kit(job.kits / name, SystemDisk(), _mode)
        config = aggregator_config(job.config, job.plan, job.folder)
        state = job.folder / "aggregators" / name
        around = Surroundings(
            open_engine(config),
            open_stores(config),
            state,
            lambda grid: _directory(grid, len(sites.names)),
            _TIMING,
            job.show,
        )
        strategy = build_strategy(kit, config, around)
        gpus = 0.0 if job.config.train.device == "cpu" else _gpu_share()
        app = client_app(sites.answer, sites.name)
        run_on_ray(server_app(lambda _: strategy), app, len(sites.names), gpus)
        folders = {n: job.folder / "sites" / n for n in sites.names}
        ledgers = {n: path / "ledger.jsonl" for n, path in folders.items()}
        return Outcome(
            tuple(read_lines(state / "events.jsonl")),
            {**ledgers, name: state / "ledger.jsonl"},
            {n: privacy_history(path, job.plan) for n, path in folders.items()},
        )


def create(settings: Mapping[str, object]) -> Backend:
    """Return the backend; it has no settings of its own."""
    _ = settings
    return Ray()


def _sites(job: Job) -> _Sites:
    names = job.plan["sites"]
    values: dict[str, JSON] = job.config.data.model_dump(mode="json")
    return _Sites(
        kits=str(job.kits),
        folder=str(job.folder),
        names=tuple(str(n) for n in names) if isinstance(names, list) else (),
        data={**values, "dataset": job.config.data.id},
        device=job.config.train.device,
        objects=tuple(job.config.model.objects),
    )


def _directory(grid: Grid, count: int) -> Directory:
    known: dict[str, int] = {}

    def directory() -> Mapping[str, int]:
        if not known:
            known.update(asked_nodes(grid, count))
        return known

    return directory


def _gpu_share() -> float:
    """Return a quarter of a GPU where there is one: several sites share a device."""
    return 0.25 if Path("/dev/nvidia0").exists() else 0.0


def _mode(path: Path) -> int:
    return path.stat().st_mode
