"""One aggregator kept alive: its SuperLink, its admitted nodes, its run.

The ServerApp of the run campaigns for the lease in a process of Flower's; this daemon
never touches round data. When any of the processes dies it ends the others, so that a
half-dead aggregator cannot go on renewing its lease, and starts again.
"""

import contextlib
import logging
import socket
import sys
import tempfile
import threading
from pathlib import Path

from fedsecure.access.kit import Kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config, read_terms
from fedsecure.assembly.fitness import require_fit
from fedsecure.assembly.places import open_engine, open_rack, open_stores
from fedsecure.clock import SystemClock
from fedsecure.daemons.namesake import refuse_namesake
from fedsecure.daemons.opened_kit import open_kit
from fedsecure.daemons.runstatus import RunStatus
from fedsecure.daemons.seat import Seat
from fedsecure.daemons.shutdown import on_stop, run_main
from fedsecure.daemons.supervisor import (
    Backoff,
    Child,
    Follower,
    named,
    require_running,
    wait_for_end,
)
from fedsecure.disk import SystemDisk, require_room
from fedsecure.errors import (
    ConfigurationError,
    FedsecureError,
    ProcessFailed,
    StorageError,
)
from fedsecure.flower import commands
from fedsecure.flower.bundle import make_bundle
from fedsecure.flower.link import Control
from fedsecure.metadata import LeaseBoard
from fedsecure.monitor.observer import JsonLines
from fedsecure.monitor.pulse import PULSE, PulseWatch
from fedsecure.provision.ca import check_certificate

log = logging.getLogger(__name__)

START_SECONDS = 90.0
ROOM = 1 << 20
"""Bytes without which a state folder counts as full: logs, databases, the ledger."""
_LOOK = 0.2
_ASK = 5.0
_LINGER = 5.0
_HANGS, _HANGS_TTLS = 10.0, 3
"""Seconds, and leases, without a pulse after which a ServerApp hangs."""


def main(path: Path) -> int:
    """Serve the kit at `path` until its run is complete or a signal comes.

    Returns
    -------
    int
        0: the run is complete, or a signal ended it.

    Raises
    ------
    FedsecureError
        What the operator must mend; see its message.
    """
    kit = open_kit(path, Role.AGGREGATOR, SystemDisk(), SystemClock())
    return AggregatorDaemon(kit).serve(on_stop())


class AggregatorDaemon:
    """The processes of one aggregator."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._config = read_config(kit)
        self._terms = read_terms(self._config, kit.roster)
        address = kit.roster.members[kit.name].address
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._seat = Seat(self._board, kit.name, address)
        self._root = (kit.path / "ca.crt").read_bytes()
        self._log = kit.state / "superlink.log"
        clock = SystemClock()
        self._clock = clock
        limit = max(_HANGS, _HANGS_TTLS * self._config.ttl)
        self._pulse = PulseWatch(kit.state / PULSE, limit, clock)
        self._observer = JsonLines(kit.state / "daemon.jsonl", kit.name, clock)

    def serve(self, stop: threading.Event) -> int:
        """Start, watch, start again; until complete or told to stop."""
        self._check()
        backoff = Backoff()
        while not stop.is_set():
            child = self._start_superlink()
            try:
                if self._serve_one(child, stop):
                    return 0
            except FedsecureError as bad:
                why = f"{bad}{self._full()}"
                log.warning("%s: %s; starting again", self._kit.name, why)
                self._observer.note("restart", {"reason": why})
            finally:
                child.end()
                self._vacate()
            stop.wait(backoff.wait())
        return 0

    def _full(self) -> str:
        """Return what to add to a failure's reason: a full disk has no other voice."""
        try:
            require_room(self._kit.state, ROOM)
        except StorageError as full:
            return f"; {full}"
        return ""

    def _board(self) -> LeaseBoard:
        return open_engine(self._config, look=True).leases

    def _vacate(self) -> None:
        """Give up what a ServerApp that is dead cannot: others lead at once.

        Not with the embedded engine: there the kernel has freed the lock already.
        """
        if self._config.engine.name != "embedded":
            lease = self._seat.vacate()
            if lease is not None:
                self._observer.note("vacated", {"term": lease.term})

    def _check(self) -> None:
        """Refuse what would fail later: port, room, engine, keys, stores."""
        certificate = (self._kit.path / "tls.crt").read_bytes()
        check_certificate(certificate, self._root, self._host, self._clock.wall())
        require_free_port(self._host, self._port)
        require_room(self._kit.state, ROOM)
        try:
            board = open_engine(self._config).leases
            refuse_namesake(board, self._kit.name, self._clock)
        except StorageError as silent:
            raise StorageError(
                f"{' '.join(str(silent).split())}: start the engine, give it "
                "room, or mend the network or its place, `lease` and `engine` in "
                f"{self._kit.path / 'aggregator.json'}; this aggregator cannot lead or "
                "stand by without it: then start it again"
            ) from silent
        open_rack(self._kit, self._config)
        stores = open_stores(self._config)
        require_fit(self._config, stores, self._kit.roster.federation)

    def _serve_one(self, child: Child, stop: threading.Event) -> bool:
        """Run until complete (True); ProcessFailed when any process died."""
        control = self._connect(child, stop)
        if control is None:
            return True
        with contextlib.closing(control):
            for site in self._kit.roster.of(Role.SITE):
                control.register(site.supernode, site.name)
            with tempfile.TemporaryDirectory(prefix="fed-app-") as folder:
                bundle = make_bundle(Path(folder))
            self._pulse.begin()
            run = control.start_run(bundle, {"kit": str(self._kit.path)})
            self._observer.note("started", {"run": run})
            if self._config.engine.name != "embedded":
                self._seat.prepare()
            status = RunStatus(lambda: control.status(run), self._log)
            return self._watch(child, status, stop)

    def _connect(self, child: Child, stop: threading.Event) -> Control | None:
        """Wait for the SuperLink's port; None if told to stop meanwhile."""
        ends = self._clock.now() + START_SECONDS
        while not stop.is_set():
            require_running(child, self._log)
            with contextlib.suppress(OSError):
                socket.create_connection((self._host, self._port), 1.0).close()
                return Control(f"{self._host}:{self._port}", self._root)
            if self._clock.now() > ends:
                raise ProcessFailed(f"SuperLink is not up after {START_SECONDS:.0f} s")
            stop.wait(_LOOK)
        return None

    def _watch(self, child: Child, status: RunStatus, stop: threading.Event) -> bool:
        """Return True once the run is complete; ProcessFailed if anything died."""
        app = Follower(lambda: named(child.pid, "flwr-serverapp"))
        gone_since, asked = 0.0, 0.0
        while not stop.is_set():
            require_running(child, self._log)
            now = self._clock.now()
            if app.look():
                self._vacate()
            gone_since = (gone_since or now) if app.gone else 0.0
            if gone_since or now - asked > _ASK:
                asked = now
                if status.complete():
                    return True
            if not app.gone and self._pulse.hangs():
                raise ProcessFailed("the ServerApp hangs: it shows no pulse")
            # A ServerApp that ended well is gone a moment before its run says so.
            if gone_since and now - gone_since > _LINGER:
                raise ProcessFailed("the ServerApp died")
            wait_for_end([child.pid, *app.left], _LOOK)
        return True

    def _start_superlink(self) -> Child:
        kit = self._kit
        tls = commands.Tls(
            kit.path / "ca.crt", kit.path / "tls.crt", kit.path / "tls.key"
        )
        database = kit.state / "superlink.sqlite"
        command = commands.superlink(self._host, self._port, tls, database)
        environment = commands.environment(kit.state / "flwr", commands.SERVER_HEAP)
        return Child("SuperLink", command, environment, self._log)


def require_free_port(host: str, port: int) -> None:
    """Return only if nobody listens at the address.

    Raises
    ------
    ConfigurationError
        Somebody does, or it is not an address of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as taken:
            raise ConfigurationError(
                f"port {port} of {host} cannot be used ({taken.strerror}): end what "
                "listens there, or provision the aggregator with another port"
            ) from taken


if __name__ == "__main__":
    run_main(main, Path(sys.argv[1]))
