"""A site's trusted process: ClientRound behind the relay, and its children kept alive.

It holds keys, policy, ledger, budget and outbox, and answers one request at a time for
all supernodes of the site. Its children hold none of that: a supernode per aggregator
(the relay side), and the worker with the rows and the training code.
"""

import logging
import os
import socket
import sys
import threading
from pathlib import Path

from fedsecure import registry
from fedsecure.access.kit import Kit
from fedsecure.access.roster import Member, Role
from fedsecure.assembly.node import (
    MAX_BYTES,
    PolicyGate,
    build_round,
    fingerprint,
)
from fedsecure.assembly.section import read_section
from fedsecure.client_round import ClientRound
from fedsecure.clock import SystemClock
from fedsecure.config import NodeConfig
from fedsecure.daemons.kept_worker import KeptWorker
from fedsecure.daemons.opened_kit import open_kit
from fedsecure.daemons.shutdown import on_stop, run_main
from fedsecure.daemons.supervisor import Backoff, Child
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.flower import commands
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.budget import Content
from fedsecure.relay import RelayServer

log = logging.getLogger(__name__)

_LOOK = 0.2
_LAST_ANSWER = 10.0
"""Seconds that a daemon which is told to end gives to an answer past its training."""


def main(path: Path) -> int:
    """Serve the kit at `path` until a signal comes; return 0.

    Raises
    ------
    FedsecureError
        What the steward or operator must mend; see its message.
    """
    clock = SystemClock()
    kit = open_kit(path, Role.SITE, SystemDisk(), clock)
    config = read_config(kit)
    PolicyGate(kit, clock).policy()  # no policy: no row is read, nothing is started
    return NodeDaemon(kit, config).serve(on_stop())


def read_config(kit: Kit) -> NodeConfig:
    """Return the checked ``node.json`` beside a kit.

    Raises
    ------
    ConfigurationError
        Missing, not JSON, or a value out of bounds.
    """
    path = kit.path / "node.json"
    found = read_section(NodeConfig, path)
    if found is None:
        raise ConfigurationError(
            f"{path} is missing: it says where this site's rows are; "
            "see docs/operate.md"
        )
    return found


class NodeDaemon:
    """The processes of one site."""

    def __init__(self, kit: Kit, config: NodeConfig) -> None:
        self._kit = kit
        self._config = config
        self._worker = KeptWorker(kit, config)
        self._one_at_a_time = threading.Condition()
        self._failure: StorageError | None = None

    def serve(self, stop: threading.Event) -> int:
        """Answer until told to stop, keeping the children alive.

        Raises
        ------
        StorageError
            The disk failed while a message was answered.
        """
        worker = self._worker.start()
        store = registry.load("stores", "local").create(
            {"path": self._kit.state / "shelf"}
        )
        dataset = self._config.data.id
        content = Content(
            dataset,
            fingerprint(self._kit, worker.digest()),
            max(worker.rows(), 1),
            worker.users(),
        )
        half = build_round(self._kit, content, store, self._kit.state)

        socket_path = self._kit.state / "relay.sock"
        users = frozenset({os.getuid()})
        server = RelayServer(
            socket_path, lambda data: self._answer(half, data, stop), MAX_BYTES, users
        )
        server.start()
        try:
            self._keep_supernodes(socket_path, stop)
        finally:
            stop.set()  # also where no process could be started: no disk has failed
            server.close()
            self._end_pass()
            half.close()
        if self._failure is not None:
            raise self._failure
        return 0

    def _end_pass(self) -> None:
        """End a pass that trains, and wait for what it held up, but not for ever.

        The worker first: the lock is held until its pass is over. What is still being
        encrypted then may be finished and kept, for it is paid for; a ledger that is
        closed under it takes no more lines.
        """
        self._worker.end()
        if self._one_at_a_time.acquire(timeout=_LAST_ANSWER):
            self._one_at_a_time.notify_all()
            self._one_at_a_time.release()
        else:
            log.warning("an answer took over %s s to be kept: given up", _LAST_ANSWER)

    def _answer(
        self, half: ClientRound, data: bytes, stop: threading.Event
    ) -> Outgoing:
        """Return the site's answer to one of the messages that come side by side.

        The lock is over before the answer is sent: by then it lies in the outbox, where
        nothing changes, and a slow reader must not keep others waiting.
        """
        with self._one_at_a_time:
            self._await_release(half, data, stop)
            try:
                return self._answered(half, data, stop)
            finally:
                self._one_at_a_time.notify_all()

    def _await_release(
        self, half: ClientRound, data: bytes, stop: threading.Event
    ) -> None:
        """Let others be answered while a release is on its way that `data` builds on.

        It comes from a standby, by another supernode, and may be a poll behind.

        Raises
        ------
        StorageError
            The daemon ends meanwhile.
        """
        if wait := half.patience(data):
            self._one_at_a_time.wait_for(
                lambda: stop.is_set() or not half.patience(data), wait
            )
        if stop.is_set():
            raise StorageError("this daemon ends; the aggregators ask again")

    def _answered(
        self, half: ClientRound, data: bytes, stop: threading.Event
    ) -> Outgoing:
        """Return the site's answer; a disk that fails ends the daemon, unanswered.

        Whoever started it starts it again, and it goes on from what is durable; the
        aggregators ask again until then.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return half.answer(data, self._worker)
        except StorageError as failed:
            if stop.is_set():  # its worker was ended under it, or its ledger closed
                raise
            self._failure = failed
            log.exception("the disk failed: this daemon ends, to be started again")
            stop.set()
            raise

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
