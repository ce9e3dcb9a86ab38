"""One's own Flower apps under fedsecure: a folder of kits, one mod, one strategy.

For simulation, where all parties run as one user: the sites' policies are checked and
what the server holds is encrypted, but one machine is no boundary (docs/adopt.md).
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML

from fedsecure import registry
from fedsecure.access.kit import Kit, read_kit
from fedsecure.assembly.aggregator import (
    Surroundings,
    build_strategy,
)
from fedsecure.assembly.node import build_round, fingerprint
from fedsecure.assembly.places import open_engine, open_stores
from fedsecure.config import AggregatorConfig
from fedsecure.disk import SystemDisk
from fedsecure.errors import AlreadyExists, ConfigurationError
from fedsecure.flower.post import Timing
from fedsecure.flower.rollcall import WHO, rollcall
from fedsecure.flower.strategy import SecureFedAvg
from fedsecure.monitor.observer import read_lines
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.budget import Content
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.provision.kits import provision
from fedsecure.sections import EncryptionConfig
from fedsecure.shelf import Shelf
from fedsecure.stores import Store
from fedsecure.trainer import Trainer
from fedsecure.update import JSON, unflatten

_AGGREGATOR = "agg-1"
_DATASET = "object"
_MAX_BYTES = 1 << 30
_TTL = 20.0  # nobody waits to take over, and a simulation may starve the renewal
_PORT = 9091  # written into the kit; a simulation opens no port


class NodeContext(Protocol):
    """A Flower `Context`, as far as a site is told from it."""

    @property
    def node_config(self) -> Mapping[str, object]:
        """Holds "partition-id", as Flower's simulation sets it."""
        ...


@dataclass(frozen=True, slots=True)
class Federation:
    """Kits and plan of one run in a folder; plain values, so ray can send it around.

    Attributes
    ----------
    folder : str
    plan : Mapping
        The run's plan document.
    deadline : float
        Seconds a round stays open.
    """

    folder: str
    plan: Mapping[str, JSON]
    deadline: float

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites; a node's "partition-id" counts them from 0."""
        names = self.plan["sites"]
        return tuple(str(n) for n in names) if isinstance(names, list) else ()

    def site(self, context: NodeContext) -> "OpenedSite":
        """Return the site a node stands for: the first argument of `secure_mod`.

        Raises
        ------
        ConfigurationError
            The node has no "partition-id", or one beyond the sites.
        """
        number = context.node_config.get("partition-id")
        if not isinstance(number, int) or not 0 <= number < len(self.sites):
            raise ConfigurationError(
                f"node_config partition-id={number!r}, must be 0 to "
                f"{len(self.sites) - 1}: start as many nodes as the plan has sites"
            )
        return OpenedSite(Path(self.folder), self.sites[number])

    def strategy(
        self, show: Callable[[Mapping[str, JSON]], None] = lambda _: None
    ) -> SecureFedAvg:
        """Return the run's strategy, in place of `FedAvg`.

        Parameters
        ----------
        show : callable
            Told of every event as it happens.
        """
        folder = Path(self.folder)
        kit = _kit(folder, _AGGREGATOR)
        config = AggregatorConfig(
            plan=dict(self.plan),
            deadline=self.deadline,
            lease=str(folder / "lease"),
            ttl=_TTL,
            stores=[str(folder / "checkpoints")],
            quorum=1,
        )
        around = Surroundings(
            open_engine(config),
            open_stores(config),
            kit.state,
            lambda grid: rollcall(grid, len(self.sites)),
            Timing(poll=0.02, retry=0.2),
            show,
        )
        return build_strategy(kit, config, around)

    def scores(self) -> list[dict[str, JSON]]:
        """Return what the sites measured, {site: metrics}, once a model.

        First the initial model, then the model after each round: sites measure the
        model they are given before they train it.
        """
        events = read_lines(_kit(Path(self.folder), _AGGREGATOR).state / "events.jsonl")
        told = [e["metrics"] for e in events if e["event"] in {"released", "finished"}]
        return [m for m in told if isinstance(m, dict)]

    def model(self, number: int | None = None) -> dict[str, npt.NDArray[np.float64]]:
        """Return the model after a round, the last by default, from the first site.

        The server never has it, and a site keeps only its newest models.

        Raises
        ------
        ConfigurationError
            The site does not have it, or no longer.
        """
        name, run = self.sites[0], str(self.plan["run"])
        kit = _kit(Path(self.folder), name)
        shelf = Shelf(_store(kit), run, _MAX_BYTES)
        wanted = int(str(self.plan["rounds"])) if number is None else number
        layout, model = shelf.layout(), shelf.model(wanted)
        if layout is None or model is None:
            raise ConfigurationError(f"{name} has no model after round {wanted}")
        return unflatten(model, layout)


@dataclass(frozen=True, slots=True)
class OpenedSite:
    """A site that is opened for each message: a simulation's workers come and go."""

    folder: Path
    name: str

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        """Return the site's answer to one message, or its name if that was asked."""
        if data == WHO:
            return Outgoing.of(self.name.encode())
        kit = _kit(self.folder, self.name)
        content = Content(_DATASET, fingerprint(kit, b"simulated"), trainer.rows())
        half = build_round(kit, content, _store(kit), kit.state)
        try:
            return half.answer(data, trainer)
        finally:
            half.close()


def adopt(
    folder: str | Path,
    *,
    sites: int,
    rounds: int,
    train: Mapping[str, JSON] | None = None,
    run: str = "run-1",
    max_rows: int = 0,
    value_range: float = 1.0,
    deadline: float = 120.0,
) -> Federation:
    """Make kits and a plan in a folder, or take those that are there.

    Parameters
    ----------
    sites, rounds : int
    train : mapping, optional
        Settings of one's own training; each text or number arrives in "config".
    run : str
        Names the run: another name is another run of the same sites.
    max_rows : int
        Rows that weigh 1 when sites weigh by "num-examples"; 0: all weigh the same.
    value_range : float
        Largest change of a parameter in a round; larger ones are cut, and counted in
        the metric "saturated".
    deadline : float
        Seconds a round stays open.

    Raises
    ------
    ConfigurationError
        The folder's run has another plan, or a value is out of bounds.
    """
    place = Path(folder).absolute()
    names = [f"site-{i + 1:02d}" for i in range(sites)]
    if not (place / "roster.json").exists():
        _provision(place, names)
    roster = _kit(place, _AGGREGATOR).roster
    plan = _plan(roster.federation, names, run, rounds)
    plan["train"], plan["max_rows"] = dict(train or {}), max_rows
    hiding = EncryptionConfig(value_range=value_range, max_contributors=max(16, sites))
    plan["encryption"] = hiding.document(sites, sites, private=False)
    text = json.dumps(plan, sort_keys=True, indent=1).encode()
    path, disk = place / f"plan-{run}.json", SystemDisk()
    with contextlib.suppress(AlreadyExists):
        disk.write_once(path, text)
    if disk.read(path, 1 << 20) != text:
        raise ConfigurationError(
            f"{path} is another plan than asked for: name the new run, run=..., or "
            "take another folder"
        )
    return Federation(str(place), plan, deadline)


def _plan(federation: str, sites: list[str], run: str, rounds: int) -> dict[str, JSON]:
    cohort: list[JSON] = list(sites)
    return {
        "format": 1,
        "federation": federation,
        "run": run,
        "project": "demo",
        "dataset": _DATASET,
        "rounds": rounds,
        "sites": cohort,
        "custodians": cohort,
        "min_contributors": len(sites),
        "seed": 7,
        "metrics": "plain",
        "model": {},
        "privacy": PrivacyPlan(Mode.NONE).document(),
    }


def _provision(place: Path, names: list[str]) -> None:
    members = {
        "name": "adopted",
        "aggregators": [
            {
                "name": _AGGREGATOR,
                "host": "127.0.0.1",
                "port": _PORT,
                "organisation": "simulation",
            }
        ],
        "sites": [{"name": name, "organisation": name} for name in names],
    }
    place.mkdir(parents=True, exist_ok=True)
    description = place / "federation.yaml"
    YAML(typ="safe").dump(members, description)
    provision(description, place, datetime.now(UTC))


def _kit(folder: Path, name: str) -> Kit:
    return read_kit(folder / name, SystemDisk(), lambda p: p.stat().st_mode)


def _store(kit: Kit) -> Store:
    store: Store = registry.load("stores", "local").create(
        {"path": kit.state / "shelf"}
    )
    return store
