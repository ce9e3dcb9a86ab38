"""What protection costs a round: the same model through plain Flower and through us.

    python experiments/benchmarks/round_overhead.py [--json] [--params 1000000]

Both paths run Flower's own apps, grid and records in one process
(`InMemoryFederation`), with the same sites, and a stand-in for training that adds a
made-up update; its CPU time is measured and taken off. Each part has a fresh process.
"""

# ruff: noqa: PLC0415 - each part's process imports only what it measures
# ruff: noqa: ARG001, ARG002 - signatures are Flower's

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedsecure.flower.commands import SERVER_HEAP

warnings.simplefilter("ignore")

TARGETS = {"cpu_ratio": 3.0, "uplink_ratio": 1.1, "server_memory_ratio": 1.2}
JOINED_BY = 2
"""Rounds counted begin here: in the first one sites get key and first model."""


@dataclass
class Meter:
    """Time, and bytes of messages, read at the end of each round."""

    training: float = 0.0
    up: int = 0
    down: int = 0
    marks: list[tuple[float, float, float, int, int]] = field(default_factory=list)

    def mark(self) -> None:
        used = time.process_time() - self.training
        self.marks.append((time.monotonic(), used, self.training, self.up, self.down))

    def per_round(self, sites: int) -> dict[str, float]:
        first, last = self.marks[JOINED_BY - 2], self.marks[-1]
        rounds = len(self.marks) - (JOINED_BY - 1)
        wall, cpu, training, up, down = (
            (b - a) / rounds for a, b in zip(first, last, strict=True)
        )
        return {
            "seconds": wall,
            "cpu_seconds_outside_training": cpu,
            "training_cpu_seconds": training,
            "up_bytes_per_client": up / sites,
            "down_bytes_per_client": down / sites,
        }

    def trained(self, work: Callable[[], Any]) -> Any:
        start = time.thread_time()
        try:
            return work()
        finally:
            self.training += time.thread_time() - start

    def deliver(self, site: str, message: Any, app: Callable[[Any], Any]) -> Any:
        self.down += _size(message)
        reply = app(message)
        self.up += _size(reply)
        return reply


def _size(message: Any) -> int:
    if not message.has_content():
        return 0
    return sum(
        len(array.data)
        for record in message.content.values()
        for array in record.values()
        if hasattr(array, "data")
    )


def _shape(params: int) -> tuple[int, int]:
    rows = max(d for d in range(1, int(params**0.5) + 1) if params % d == 0)
    return rows, params // rows


def plain(params: int, sites: int, rounds: int) -> dict[str, float]:
    """Flower's FedAvg with ordinary ClientApps: float32, nothing hidden."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg

    from fedsecure.flower.link import InMemoryFederation, Node

    meter = Meter()

    def site_app(index: int) -> ClientApp:
        app = ClientApp()
        made = np.random.default_rng(index).normal(0, 1e-3, _shape(params))
        delta = made.astype(np.float32)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            arrays = message.content["arrays"].to_numpy_ndarrays()
            new = meter.trained(lambda: arrays[0] + delta)
            content = RecordDict(
                {
                    "arrays": ArrayRecord([new]),
                    "metrics": MetricRecord({"num-examples": 100}),
                }
            )
            return Message(content=content, reply_to=message)

        return app

    nodes = [Node(f"s{i}", f"s{i}".encode(), site_app(i), {}) for i in range(sites)]
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_evaluate=0.0,
            min_train_nodes=sites,
            min_evaluate_nodes=0,
            min_available_nodes=sites,
        )
        first = ArrayRecord([np.zeros(_shape(params), dtype=np.float32)])

        def after(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            if server_round:
                meter.mark()
            return MetricRecord({})

        strategy.start(grid, first, num_rounds=rounds, evaluate_fn=after)

    InMemoryFederation(nodes, meter.deliver).run(server)
    return meter.per_round(sites)


def protected(params: int, sites: int, rounds: int) -> dict[str, float]:
    """The product: signed, encrypted, journalled, replicated, with local stores."""
    from fedsecure.assembly.node import build_round
    from fedsecure.flower.link import InMemoryFederation, Node
    from fedsecure.flower.mod import client_app
    from fedsecure.flower.strategy import server_app
    from fedsecure.privacy.budget import Content

    meter = Meter()

    def show(event: Mapping[str, Any]) -> None:
        if event["event"] == "released":
            meter.mark()

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        rig = Rig.make(Path(scratch), sites, rounds)
        halves = []
        for index, kit in enumerate(rig.sites()):
            state = Path(scratch) / "sites" / kit.name
            content = Content(rig.dataset, "0" * 32, 100)
            half = build_round(kit, content, rig.store(state / "shelf"), state)
            trainer = StandIn(params, index, meter)
            halves.append((kit.name, half, trainer))

        def answers(half: Any, trainer: Any) -> Any:
            return client_app(lambda _, data: half.answer(data, trainer))

        nodes = [
            Node(name, name.encode(), answers(half, trainer), {})
            for name, half, trainer in halves
        ]
        keys = {name.encode(): name for name, _, _ in halves}
        strategy = rig.strategy(keys, show)
        InMemoryFederation(nodes, meter.deliver).run(server_app(lambda _: strategy))
        for _, half, _ in halves:
            half.close()
    return meter.per_round(sites)


class StandIn:
    """Training that costs nothing: one made-up update, the same each round."""

    def __init__(self, params: int, index: int, meter: Meter) -> None:
        from fedsecure.update import Layout

        self._layout = Layout(("w",), (_shape(params),))
        self._delta = np.random.default_rng(index).normal(0, 1e-3, params)
        self._meter = meter

    def initial(self, settings: Mapping[str, Any]) -> Any:
        return self._layout, np.zeros(self._layout.num_parameters)

    def rows(self) -> int:
        return 100

    def run(self, task: Any) -> Any:
        from fedsecure.trainer import TrainingResult
        from fedsecure.update import ModelUpdate

        new = self._meter.trained(lambda: task.model + self._delta)
        update = ModelUpdate(self._layout, new - task.model, 100)
        return TrainingResult(update if task.train else None, {}, 0)


@dataclass
class Rig:
    """Kits, plan and stores of a made-up federation."""

    scratch: Path
    kits: Path
    config: Any
    plan: dict[str, Any]

    @classmethod
    def make(
        cls, scratch: Path, sites: int, rounds: int, masking: str | None = None
    ) -> "Rig":
        from fedsecure import experiment
        from fedsecure.config import RunConfig

        values = {
            "federation": {
                "sites": sites,
                "aggregators": 1,
                "rounds": rounds,
                "max_rows": 0,
            },
            "encryption": {"max_contributors": max(16, sites), "masking": masking},
        }
        config = RunConfig.parse(values)
        kits = experiment._kits(config, scratch)  # noqa: SLF001 - as `fedsecure run` does
        return cls(scratch, kits, config, experiment.make_plan(config, kits, []))

    @property
    def dataset(self) -> str:
        return str(self.config.data.id)

    def kit(self, name: str) -> Any:
        from fedsecure.access.kit import read_kit
        from fedsecure.disk import SystemDisk

        return read_kit(self.kits / name, SystemDisk(), lambda p: p.stat().st_mode)

    def sites(self) -> list[Any]:
        return [self.kit(name) for name in self.plan["sites"]]

    @staticmethod
    def store(path: Path) -> Any:
        from fedsecure import registry

        return registry.load("stores", "local").create({"path": path})

    def strategy(
        self,
        keys: Mapping[bytes, str],
        show: Callable[[Mapping[str, Any]], None],
        directory: Any = None,
    ) -> Any:
        from fedsecure import registry
        from fedsecure.assembly.aggregator import (
            Surroundings,
            aggregator_config,
            build_strategy,
        )
        from fedsecure.assembly.places import open_stores
        from fedsecure.flower.link import site_nodes
        from fedsecure.flower.post import Timing

        config = aggregator_config(self.config, self.plan, self.scratch)
        around = Surroundings(
            registry.load("metadata", "embedded").create(
                {"path": self.scratch / "lease"}
            ),
            open_stores(config),
            self.scratch / "agg",
            directory or (lambda grid: lambda: site_nodes(grid, keys)),
            Timing(poll=0.01, retry=0.05),
            show,
        )
        return build_strategy(self.kit("agg-1"), config, around)


def server(params: int, scratch: Path) -> dict[str, float]:
    """The aggregator alone: letters are dropped, answers made when they are fetched."""
    from fedsecure.body import Form
    from fedsecure.config import RunConfig
    from fedsecure.flower.link import InMemoryFederation

    made = json.loads((scratch / "rig.json").read_text())

    rig = Rig(scratch, scratch / "kits", RunConfig.parse(made["config"]), made["plan"])
    keys = {
        name: rig.kit(name).signing for name in rig.plan["sites"]
    }  # the sites' own hands
    InMemoryFederation([])._grid()  # noqa: SLF001 - gives the process a task to send as
    form, key_id = (bytes.fromhex(made[name]) for name in ("form", "key_id"))
    grid = LazyGrid(params, keys, rig.plan, Form.read(form), key_id)
    order = {name: i for i, name in enumerate(keys)}
    strategy = rig.strategy({}, lambda _: None, lambda _: lambda: order)
    strategy.start(grid)
    return {"server_peak_bytes": _peak()}


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))


class LazyGrid:
    """Sites that exist only while their answer is fetched: valid, signed, random."""

    def __init__(
        self,
        params: int,
        keys: Mapping[str, Any],
        plan: Mapping[str, Any],
        form: Any,
        key_id: bytes,
    ) -> None:
        self._form = form
        self._key_id = key_id
        self._params = params
        self._keys = keys
        self._plan = plan
        self._one = threading.Lock()
        self._asked: dict[str, tuple[str, Any, Any, Any]] = {}

    def get_node_ids(self) -> list[int]:
        return []

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        from fedsecure.envelope import parse
        from fedsecure.flower import records

        ids = []
        for message in messages:
            envelope = parse(records.read(message, 1 << 30), 1 << 30)
            bare = records.message(b"", message.metadata.dst_node_id, "bench")
            bare.metadata.__dict__["_message_id"] = os.urandom(16).hex()
            header = json.loads(envelope.header)
            facts = {k: header.get(k) for k in ("train", "input")}
            kept = (str(envelope.kind), bare, envelope.scope, facts)
            self._asked[bare.metadata.message_id] = kept
            ids.append(bare.metadata.message_id)
        return ids

    def pull_messages(self, ids: Iterable[str]) -> Iterable[Any]:
        from fedsecure.flower import records

        for name in ids:
            found = self._asked.pop(name, None)
            if found is not None:
                kind, bare, scope, facts = found
                with self._one:  # a site's work is not the server's memory
                    data = self._answer(kind, scope, facts)
                yield records.reply(data, bare)

    def _answer(self, kind: str, scope: Any, facts: Mapping[str, Any]) -> bytes:
        from fedsecure.envelope import Kind, sign

        header: dict[str, Any] = {"input": facts["input"], "metrics": {}}
        body = b""
        if kind == Kind.BEGIN_REQUEST:
            return self._begin(scope)
        if facts["train"]:
            body = self._body()
        kind = Kind.UPDATE if facts["train"] else Kind.REPORT
        key = self._keys[scope.site]
        return sign(kind, scope, header, body, signer=scope.site, key=key).to_bytes()

    def _begin(self, scope: Any) -> bytes:
        from dataclasses import replace

        from fedsecure import parts
        from fedsecure.envelope import Kind, canonical, sign
        from fedsecure.update import Layout

        layout = Layout(("w",), (_shape(self._params),))
        pieces = [("statement", bytes(100_000))]
        pieces += [(f"wrap:{site}", bytes(33_000)) for site in self._plan["sites"]]
        pieces.append(("layout", canonical(layout.document())))
        pieces.append(("initial", bytes(8 * self._params)))
        pieces.append(("form", self._form.to_bytes()))
        header: dict[str, Any] = {"parts": parts.listing(pieces)}
        scope, key = replace(scope, key_id=self._key_id), self._keys[scope.site]
        body = parts.join(pieces)
        made = sign(Kind.BEGIN, scope, header, body, signer=scope.site, key=key)
        return made.to_bytes()

    def _body(self) -> bytes:
        # The wire form of random residues: below q but for a chance of 2**-46 each.
        from fedsecure.ciphertext import announced_bytes

        return b"".join(
            header + os.urandom(announced_bytes(header) - len(header))
            for header in self._form.headers
        )


def _part(arguments: argparse.Namespace) -> dict[str, float]:
    if arguments.part == "server":
        return server(arguments.params, Path(arguments.scratch))
    run = plain if arguments.part == "plain" else protected
    return run(arguments.params, arguments.sites, arguments.rounds)


def _fresh(part: str, **options: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--part", part]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    if part == "server":
        environment |= SERVER_HEAP  # as the aggregator's daemon starts it
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    )
    made: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return made


def _named(rig: Rig, params: int) -> dict[str, str]:
    """What a custodian site names when the run begins; hexadecimal."""
    from fedsecure import registry
    from fedsecure.runplan import read_plan
    from fedsecure.updateform import update_form

    plan = read_plan(rig.plan)
    scheme = registry.load("he", plan.scheme).create({})
    key = scheme.keygen(os.urandom(16))
    form = update_form(plan, scheme, key, params)
    return {"form": form.to_bytes().hex(), "key_id": key.key_id.hex()}


def _server_of(params: int, sites: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        # Unmasked: random bytes for updates have no shares that open a mask.
        rig = Rig.make(Path(scratch), sites, 3, masking="none")
        made = {
            "config": rig.config.document(),
            "plan": rig.plan,
            **_named(rig, params),
        }
        (Path(scratch) / "rig.json").write_text(json.dumps(made))
        return _fresh("server", params=params, scratch=scratch)


def measured(
    params: int, sites: int, rounds: int, servers: list[int]
) -> dict[str, Any]:
    options = {"params": params, "sites": sites, "rounds": rounds}
    ours, theirs = _fresh("protected", **options), _fresh("plain", **options)
    peaks = {n: _server_of(params, n)["server_peak_bytes"] for n in servers}
    cpu = "cpu_seconds_outside_training"
    ratios = {
        "cpu_ratio": ours[cpu] / theirs[cpu],
        "uplink_ratio": ours["up_bytes_per_client"] / (4 * params),
        "downlink_ratio": ours["down_bytes_per_client"] / (4 * params),
        "server_memory_ratio": peaks[servers[-1]] / peaks[servers[0]],
    }
    missed = [name for name, bound in TARGETS.items() if ratios[name] > bound]
    return {
        **options,
        "plain": theirs,
        "protected": ours,
        "server_peak_bytes": peaks,
        **ratios,
        "targets": TARGETS,
        "missed": missed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--servers", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=["plain", "protected", "server"])
    parser.add_argument("--scratch")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.part:
        print(json.dumps(_part(arguments)))
        return
    found = measured(
        arguments.params, arguments.sites, arguments.rounds, arguments.servers
    )
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name in ("plain", "protected"):
        for key, value in found[name].items():
            print(f"{name:>9} {key:<30} {value:,.3f}")
    for n, peak in found["server_peak_bytes"].items():
        print(f"   server peak with {n:>2} sites       {peak / 2**20:,.0f} MiB")
    for name in ("cpu_ratio", "uplink_ratio", "downlink_ratio", "server_memory_ratio"):
        bound = TARGETS.get(name)
        print(f"{name:>22} {found[name]:.3f}" + (f" (<= {bound})" if bound else ""))


if __name__ == "__main__":
    main()
