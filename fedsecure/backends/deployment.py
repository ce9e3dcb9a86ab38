"""Real Flower processes from kits on this machine, with scheduled faults.

Every aggregator and every site is a daemon of its own, as on a host of its own; this
process only starts them, watches their events and, if asked, kills the leader.
"""

import json
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import aggregator_config
from fedsecure.assembly.node import privacy_history
from fedsecure.backends import Backend, Event, Job, Outcome
from fedsecure.clock import SystemClock
from fedsecure.config import NodeConfig, RunConfig
from fedsecure.daemons.supervisor import Child
from fedsecure.disk import SystemDisk
from fedsecure.errors import ProcessFailed
from fedsecure.flower.commands import environment
from fedsecure.monitor.observer import JsonLines, read_lines
from fedsecure.update import JSON

log = logging.getLogger(__name__)

_LOOK = 0.02
_SETTLE = 10.0


class Deployment:
    """A federation of processes."""

    def run(self, job: Job) -> Outcome:
        """Start everything, follow it to the end, end everything; see `Backend`."""
        kits = [read_kit(p.parent, SystemDisk(), _mode) for p in _kit_files(job)]
        used = [k for k in kits if _takes_part(k, job)]
        for index, kit in enumerate(k for k in used if k.role == Role.SITE):
            if job.config.federation.kits is None or not _has_own_rows(kit):
                _write(kit.path / "node.json", _node(job.config, index))
        for kit in (k for k in used if k.role == Role.AGGREGATOR):
            _write(kit.path / "aggregator.json", _aggregator(job))
        watch = _Watch(job, used)
        try:
            watch.start()
            watch.follow()
        finally:
            watch.end()
            _keep_traces(job, used)
        return _outcome(job, used, watch.events())


def _node(config: RunConfig, index: int) -> dict[str, JSON]:
    """Return the ``node.json`` of a simulated site."""
    made = NodeConfig(
        data=config.data,
        index=index,
        sites=config.federation.sites,
        device=config.train.device,
        objects=config.model.objects,
    )
    values: dict[str, JSON] = made.model_dump(mode="json")
    return values


class _Watch:
    """The processes of a run, and what they say happens."""

    def __init__(self, job: Job, kits: list[Kit]) -> None:
        self._job = job
        self._kits = kits
        self._clock = SystemClock()
        self._children: dict[str, Child] = {}
        self._own = JsonLines(
            job.folder / "faults.jsonl", "backend", self._clock, job.show
        )
        self._kill_in = job.config.backend.kill_leader_in_round
        # Kits that served before hold the events of earlier runs: those are not ours.
        self._old = {k.name: len(read_lines(_events(k))) for k in self._aggregators}
        self._seen = dict(self._old)

    def start(self) -> None:
        """Start a daemon for every kit: aggregators first."""
        for kit in sorted(self._kits, key=lambda k: k.role != Role.AGGREGATOR):
            word = "aggregator" if kit.role == Role.AGGREGATOR else "node"
            module = f"fedsecure.daemons.{word}"
            command = [sys.executable, "-m", module, str(kit.path)]
            log_path = kit.state / "daemon.log"
            child = Child(kit.name, command, environment(kit.state / "home"), log_path)
            self._children[kit.name] = child
        self._own.note("processes", {"started": len(self._children)})

    def follow(self) -> None:
        """Show events until the run is finished.

        Raises
        ------
        ProcessFailed
            A daemon that should be there ended, or nothing happened for too long.
        """
        patience = self._job.config.federation.deadline * 2
        patience += self._job.config.backend.start_seconds
        heard = self._clock.now()
        while True:
            fresh = self._fresh()
            for event in fresh:
                self._job.show(event)
                self._maybe_kill(event)
            if any(event["event"] == "finished" for event in fresh):
                return
            if fresh:
                heard = self._clock.now()
            self._require_alive()
            if self._clock.now() - heard > patience:
                raise ProcessFailed(
                    f"nothing happened for {patience:.0f} s; logs are in "
                    f"{self._job.folder}"
                )
            self._clock.sleep(_LOOK)

    def events(self) -> tuple[Event, ...]:
        """Return all events so far, by time."""
        lines = [
            line
            for kit in self._aggregators
            for line in read_lines(_events(kit))[self._old[kit.name] :]
        ]
        lines += read_lines(self._job.folder / "faults.jsonl")
        return tuple(sorted(lines, key=lambda e: float(str(e["now"]))))

    def end(self) -> None:
        """End every process that is left, sites first."""
        for name in reversed(list(self._children)):
            self._children[name].end()

    @property
    def _aggregators(self) -> list[Kit]:
        return [k for k in self._kits if k.role == Role.AGGREGATOR]

    def _fresh(self) -> list[Event]:
        out: list[Event] = []
        for kit in self._aggregators:
            lines = read_lines(_events(kit))
            out += lines[self._seen.get(kit.name, 0) :]
            self._seen[kit.name] = len(lines)
        return sorted(out, key=lambda e: float(str(e["now"])))

    def _maybe_kill(self, event: Event) -> None:
        """Kill the leader's whole host once it accepted an update of the round."""
        if event["event"] != "update" or event["round"] != self._kill_in:
            return
        self._kill_in = None
        name = str(event["source"])
        # Written before the blow: the lease is free the moment the leader dies.
        facts: dict[str, JSON] = {
            "victim": name,
            "round": event["round"],
            "term": event["term"],
        }
        self._own.note("kill", facts)
        pids = self._children.pop(name).kill()
        self._own.note("killed", {**facts, "processes": len(pids)})

    def _require_alive(self) -> None:
        for kit in self._kits:
            child = self._children.get(kit.name)
            status = None if child is None else child.ended()
            if status is not None and (status or kit.role == Role.SITE):
                tail = _tail(kit.state / "daemon.log")
                raise ProcessFailed(f"{kit.name} ended with status {status}: {tail}")


def create(settings: Mapping[str, object]) -> Backend:
    """Return the backend; it has no settings of its own."""
    _ = settings
    return Deployment()


def _outcome(job: Job, kits: list[Kit], events: tuple[Event, ...]) -> Outcome:
    ledgers = {k.name: job.folder / "ledgers" / f"{k.name}.jsonl" for k in kits}
    sites = [k for k in kits if k.role == Role.SITE]
    return Outcome(
        events,
        {name: path for name, path in ledgers.items() if path.exists()},
        {k.name: privacy_history(k.state, job.plan) for k in sites},
    )


def _keep_traces(job: Job, kits: list[Kit]) -> None:
    """Copy ledgers, events and logs into the run's folder; no key, no model."""
    for kit in kits:
        for source, folder, name in (
            ("ledger.jsonl", "ledgers", f"{kit.name}.jsonl"),
            ("events.jsonl", "events", f"{kit.name}.jsonl"),
            ("daemon.log", "logs", f"{kit.name}.log"),
            ("superlink.log", "logs", f"{kit.name}-superlink.log"),
            ("worker.log", "logs", f"{kit.name}-worker.log"),
        ):
            path = kit.state / source
            if path.exists():
                (job.folder / folder).mkdir(exist_ok=True)
                shutil.copyfile(path, job.folder / folder / name)


def _aggregator(job: Job) -> dict[str, JSON]:
    values: dict[str, JSON] = aggregator_config(
        job.config, job.plan, job.folder
    ).model_dump(mode="json")
    return values


def _kit_files(job: Job) -> list[Path]:
    return sorted(job.kits.glob("*/kit.json"))


def _takes_part(kit: Kit, job: Job) -> bool:
    sites = job.plan["sites"]
    named = isinstance(sites, list) and kit.name in sites
    return kit.role == Role.AGGREGATOR or (kit.role == Role.SITE and named)


def _has_own_rows(kit: Kit) -> bool:
    """Return whether a site wrote its own ``node.json``: it is not overwritten."""
    return (kit.path / "node.json").exists()


def _events(kit: Kit) -> Path:
    return kit.state / "events.jsonl"


def _write(path: Path, values: Mapping[str, JSON]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _mode(path: Path) -> int:
    return path.stat().st_mode
