"""Both halves in one process, with Flower's real apps, strategy and records; no ray.

The site's three kinds of process are plain calls here: the policy is checked, but one
process is no boundary, and the report says so.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsecure import registry
from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import (
    Surroundings,
    aggregator_config,
    build_strategy,
)
from fedsecure.assembly.node import build_round, fingerprint, privacy_history
from fedsecure.assembly.places import open_engine, open_stores
from fedsecure.backends import Backend, Job, Outcome
from fedsecure.client_round import ClientRound
from fedsecure.config import AggregatorConfig
from fedsecure.disk import SystemDisk
from fedsecure.flower.link import InMemoryFederation, Node, site_nodes
from fedsecure.flower.mod import client_app
from fedsecure.flower.post import Timing
from fedsecure.flower.strategy import server_app
from fedsecure.learning.datasets import load_site
from fedsecure.learning.training import LocalTrainer
from fedsecure.monitor.observer import read_lines
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.budget import Content
from fedsecure.stores import Store
from fedsecure.trainer import Trainer

_TIMING = Timing(poll=0.01, retry=0.05)


@dataclass(frozen=True, slots=True)
class _Site:
    """One site of the process."""

    kit: Kit
    half: ClientRound
    trainer: Trainer
    state: Path

    def answer(self, node_config: Mapping[str, object], data: bytes) -> Outgoing:
        """Do what the node daemon does, as a plain call."""
        _ = node_config
        return self.half.answer(data, self.trainer)


class InProcess:
    """A whole federation in this process."""

    def run(self, job: Job) -> Outcome:
        """Carry a run out with one aggregator; see `Backend`."""
        names = [str(name) for name in _list(job.plan["sites"])]
        sites = [_site(job, name, i) for i, name in enumerate(names)]
        nodes = [_node(site) for site in sites]
        keys = {_public_key(site.kit.name): site.kit.name for site in sites}
        kit = _aggregator(job)
        state = job.folder / "aggregators" / kit.name
        config = aggregator_config(job.config, job.plan, job.folder)
        around = Surroundings(
            open_engine(config),
            _stores(job, config),
            state,
            lambda grid: lambda: site_nodes(grid, keys),
            _TIMING,
            job.show,
        )
        strategy = build_strategy(kit, config, around)
        InMemoryFederation(nodes).run(server_app(lambda _: strategy))
        for site in sites:
            site.half.close()
        ledgers = {s.kit.name: s.state / "ledger.jsonl" for s in sites}
        ledgers[kit.name] = state / "ledger.jsonl"
        return Outcome(
            tuple(read_lines(state / "events.jsonl")),
            ledgers,
            {s.kit.name: privacy_history(s.state, job.plan) for s in sites},
        )


def create(settings: Mapping[str, object]) -> Backend:
    """Return the backend; it has no settings of its own."""
    _ = settings
    return InProcess()


def _site(job: Job, name: str, index: int) -> _Site:
    kit = read_kit(job.kits / name, SystemDisk(), _mode)
    count = len(_list(job.plan["sites"]))
    data = load_site(job.config.data.model_dump(), index, count)
    trainer = LocalTrainer(
        data,
        device=job.config.train.device,
        index=index,
        objects=job.config.model.objects,
    )
    state = job.folder / "sites" / name
    key = fingerprint(kit, data.digest())
    content = Content(job.config.data.id, key, trainer.rows(), trainer.users())
    # A site's shelf is its own affair, wherever checkpoints go.
    kind = "memory" if job.config.store.name == "memory" else "local"
    store: Store = registry.load("stores", kind).create({"path": state / "shelf"})
    half = build_round(kit, content, store, state)
    return _Site(kit, half, trainer, state)


def _aggregator(job: Job) -> Kit:
    first = read_kit(job.kits / str(_list(job.plan["sites"])[0]), SystemDisk(), _mode)
    name = first.roster.of(Role.AGGREGATOR)[0].name
    return read_kit(job.kits / name, SystemDisk(), _mode)


def _node(site: _Site) -> Node:
    app = client_app(site.answer)
    return Node(site.kit.name, _public_key(site.kit.name), app, {})


def _public_key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _stores(job: Job, config: AggregatorConfig) -> tuple[tuple[str, Store], ...]:
    if job.config.store.name != "memory":
        return open_stores(config)
    plug = registry.load("stores", job.config.store.name)
    count = job.config.store.replicas
    return tuple((f"memory-{i + 1}", plug.create({})) for i in range(count))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _mode(path: Path) -> int:
    return path.stat().st_mode
