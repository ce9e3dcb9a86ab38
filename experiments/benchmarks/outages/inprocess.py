"""Two processes, each a whole federation in memory; the one that leads is killed.

Sites, strategy, records and messages are the real ones, without Flower's processes and
without a network; both processes share the sites' folders, which only the leader's
process has open, and lease, journal and stores.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from experiments.benchmarks.outages.members import CLOCK, Member
from experiments.benchmarks.outages.samples import Kept
from fedsecure.access.kit import read_kit
from fedsecure.assembly.aggregator import (
    Surroundings,
    aggregator_config,
    build_strategy,
)
from fedsecure.assembly.places import open_engine, open_stores
from fedsecure.backends import Job
from fedsecure.backends.inprocess import _TIMING, _public_key, _Site, _site
from fedsecure.composition import composed
from fedsecure.config import RunConfig
from fedsecure.disk import SystemDisk
from fedsecure.experiment import prepare
from fedsecure.flower.link import InMemoryFederation, Node, site_nodes
from fedsecure.flower.mod import client_app
from fedsecure.flower.strategy import server_app
from fedsecure.outgoing import Outgoing
from fedsecure.trainer import JSON

NAME = "embedded, in process: SIGKILL"
STRUCK_IN = 3
_CONFIG = (
    "backend=inprocess",
    "data=breast_cancer",
    "model=logistic",
    "federation.sites=3",
    "federation.rounds=200",
    "privacy=none",
)


def measure(repeats: int, kept: Kept) -> None:
    for number in range(repeats):
        found = struck()
        kept.add({f"{NAME}: {what}": [s] for what, s in found.items()})
        print(f"\rin process {number + 1}", end="", file=sys.stderr)
    print(file=sys.stderr)


def struck() -> dict[str, float]:
    """Kill a leader once, at an update of a round; return seconds."""
    with tempfile.TemporaryDirectory(prefix="fed-bench-") as folder:
        root = Path(folder)
        _, plan = prepare(_config(root), root)
        (root / "run").mkdir()
        (root / "plan.json").write_text(json.dumps(plan))
        leader = _start(root, "agg-1")
        try:
            leader.first("released", 0.0, number=1)
            standby = _start(root, "agg-2")
            try:
                since = standby.first("standby", 0.0)
                leader.first("update", since + 1.0)
                begun = CLOCK.now()
                leader.process.kill()
                return {
                    "new leader": standby.first("leader", begun) - begun,
                    "round goes on": standby.first("sent", begun) - begun,
                    "next update": standby.first("update", begun) - begun,
                }
            finally:
                standby.end()
        finally:
            leader.end()


def _start(root: Path, name: str) -> Member:
    module = "experiments.benchmarks.outages.inprocess"
    return Member(name, [sys.executable, "-u", "-m", module, str(root), name])


def _config(root: Path) -> RunConfig:
    return composed([*_CONFIG, f"run_root={root}"])


def _show(event: Mapping[str, JSON]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def serve(root: Path, name: str) -> None:
    """Take part as one aggregator, with sites that open when they are asked."""
    plan = json.loads((root / "plan.json").read_text())
    job = Job(_config(root), plan, root / "kits", root / "run", _show)
    sites = [str(site) for site in plan["sites"]]

    @cache
    def opened(site: str) -> _Site:
        return _site(job, site, sites.index(site))

    def node(site: str) -> Node:
        def answer(given: Mapping[str, object], data: bytes) -> Outgoing:
            return opened(site).answer(given, data)

        return Node(site, _public_key(site), client_app(answer), {})

    keys = {_public_key(site): site for site in sites}
    kit = read_kit(root / "kits" / name, SystemDisk(), lambda p: p.stat().st_mode)
    config = aggregator_config(job.config, plan, job.folder)
    around = Surroundings(
        open_engine(config),
        open_stores(config),
        job.folder / "aggregators" / name,
        lambda grid: lambda: site_nodes(grid, keys),
        _TIMING,
        _show,
    )
    strategy = build_strategy(kit, config, around)
    InMemoryFederation([node(s) for s in sites]).run(server_app(lambda _: strategy))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
