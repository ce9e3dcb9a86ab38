"""A site's trusted process: ClientRound behind the relay, and its children kept alive.

It holds keys, policy, ledger, budget and outbox, and answers one request at a time for
all supernodes of the site. Its children hold none of that: a supernode per aggregator
(the relay side), and the worker with the rows and the training code.
"""

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from fedsecure import registry
from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Member, Role
from fedsecure.assembly.node import MAX_BYTES, build_round, fingerprint
from fedsecure.config import NodeConfig, parse_section
from fedsecure.daemons.shutdown import on_stop, run_main
from fedsecure.daemons.supervisor import Backoff, Child
from fedsecure.daemons.worker import WorkerTrainer
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, NotFound, TrainingFailed
from fedsecure.flower import commands
from fedsecure.privacy.budget import Content
from fedsecure.relay import RelayServer
from fedsecure.trainer import JSON, Trainer, TrainingResult, TrainingTask
from fedsecure.update import Layout, Vector

log = logging.getLogger(__name__)

_LOOK = 0.2
_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Keep freed memory: 1.3 to 4x for per-example gradients (PRIVACY section 12)."""


def main(path: Path) -> int:
    """Serve the kit at `path` until a signal comes; return 0.

    Raises
    ------
    FedsecureError
        What the steward or operator must mend; see its message.
    """
    kit = read_kit(path, SystemDisk(), lambda p: p.stat().st_mode)
    kit.require(Role.SITE)
    return NodeDaemon(kit, read_config(kit)).serve(on_stop())


def read_config(kit: Kit) -> NodeConfig:
    """Return the checked ``node.json`` beside a kit.

    Raises
    ------
    ConfigurationError
        Missing, not JSON, or a value out of bounds.
    """
    path = kit.path / "node.json"
    try:
        values = json.loads(SystemDisk().read(path, 1 << 20))
    except NotFound as missing:
        raise ConfigurationError(
            f"{path} is missing: it says where this site's rows are; see docs/operate.md"
        ) from missing
    except (ValueError, RecursionError) as bad:
        raise ConfigurationError(f"{path} is not JSON") from bad
    return parse_section(NodeConfig, values, path)


class KeptWorker:
    """The worker as a `Trainer` that survives the worker's death.

    A pass that dies is `TrainingFailed`; the next one finds a new worker.
    """

    def __init__(self, kit: Kit, config: NodeConfig) -> None:
        self._kit = kit
        self._config = config
        self._child: Child | None = None
        self._trainer: WorkerTrainer | None = None

    def start(self) -> WorkerTrainer:
        """Return a running worker, starting one if there is none."""
        alive = self._child is not None and self._child.ended() is None
        if self._trainer is not None and alive:
            return self._trainer
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "fedsecure.daemons.worker",
            str(theirs.fileno()),
        ]
        environment = commands.environment(self._kit.state / "worker", _HEAP)
        self._child = Child(
            "worker",
            command,
            environment,
            self._kit.state / "worker.log",
            [theirs.fileno()],
        )
        theirs.close()
        config: Mapping[str, JSON] = self._config.model_dump(mode="json")
        self._trainer = WorkerTrainer(ours, config)
        return self._trainer

    def end(self) -> None:
        """End the worker."""
        if self._child is not None:
            self._child.end(grace=1.0)

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Return the first model, made in the worker."""
        return self._guarded().initial(settings)

    def rows(self) -> int:
        """Return the training rows the worker loaded."""
        return self._guarded().rows()

    def run(self, task: TrainingTask) -> TrainingResult:
        """Have the worker do one pass."""
        return self._guarded().run(task)

    def _guarded(self) -> Trainer:
        try:
            return self.start()
        except OSError as bad:
            raise TrainingFailed(f"no worker could be started: {bad}") from bad


class NodeDaemon:
    """The processes of one site."""

    def __init__(self, kit: Kit, config: NodeConfig) -> None:
        self._kit = kit
        self._config = config
        self._worker = KeptWorker(kit, config)
        self._one_at_a_time = threading.Lock()

    def serve(self, stop: threading.Event) -> int:
        """Answer until told to stop, keeping the children alive."""
        worker = self._worker.start()
        store = registry.load("stores", "local").create(
            {"path": self._kit.state / "shelf"}
        )
        dataset = self._config.data.id
        content = Content(
            dataset, fingerprint(self._kit, worker.digest()), max(worker.rows(), 1)
        )
        half = build_round(self._kit, content, store, self._kit.state)

        def answer(data: bytes) -> bytes:
            with self._one_at_a_time:
                return half.answer(data, self._worker)

        socket_path = self._kit.state / "relay.sock"
        users = frozenset({os.getuid()})
        server = RelayServer(socket_path, answer, MAX_BYTES, users)
        server.start()
        try:
            self._keep_supernodes(socket_path, stop)
        finally:
            server.close()
            self._worker.end()
            half.close()
        return 0

    def _keep_supernodes(self, relay: Path, stop: threading.Event) -> None:
        """One supernode an aggregator; any exit is a failure, even with status 0."""
        aggregators = self._kit.roster.of(Role.AGGREGATOR)
        children = {a.name: self._start_supernode(a, relay) for a in aggregators}
        waits = {a.name: Backoff() for a in aggregators}
        due: dict[str, float] = {}
        try:
            while not stop.is_set():
                for aggregator in aggregators:
                    self._look(aggregator, relay, children, waits, due)
                stop.wait(_LOOK)
        finally:
            for child in children.values():
                child.end(grace=2.0)

    def _look(
        self,
        aggregator: Member,
        relay: Path,
        children: dict[str, Child],
        waits: dict[str, Backoff],
        due: dict[str, float],
    ) -> None:
        name = aggregator.name
        if children[name].ended() is None:
            return
        if name not in due:
            log.warning("supernode for %s ended; starting it again", name)
            due[name] = waits[name].due()
        elif waits[name].reached(due[name]):
            del due[name]
            children[name] = self._start_supernode(aggregator, relay)

    def _start_supernode(self, aggregator: Member, relay: Path) -> Child:
        kit = self._kit
        command = commands.supernode(
            aggregator.address,
            kit.path / "ca.crt",
            kit.path / "supernode.key",
            relay,
            free_port(),
        )
        home = kit.state / f"flwr-{aggregator.name}"
        log_path = kit.state / f"supernode-{aggregator.name}.log"
        environment = commands.environment(home)
        return Child(f"supernode {aggregator.name}", command, environment, log_path)


def free_port() -> int:
    """Return a loopback port nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    run_main(main, Path(sys.argv[1]))
