"""Real servers on loopback: each owns its ports and its folder and is ended by pid."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import requests
from psycopg.conninfo import make_conninfo

from tests.fakes.ports import free_port
from tests.fakes.smalldisk import SmallDisk

START_SECONDS = 30.0


class Process:
    """One server process; SIGSTOP and SIGKILL reach its children too."""

    def __init__(self, command: list[str], log: Path, *, user: str = "") -> None:
        if user and os.geteuid() == 0:
            ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
            command = ["setpriv", *ids, *command]
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        self.log = log

    def alive(self) -> bool:
        return self._child.poll() is None

    def pids(self) -> list[int]:
        """Return the process and its children."""
        pid = self._child.pid
        found = [pid]
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found += [int(child) for child in children.split()]
        return found

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._child.wait()

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it in good order; with force after ten seconds."""
        self.resume()
        self._child.send_signal(how)
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def until(ready: Callable[[], bool], process: Process) -> None:
    """Wait until a server answers."""
    ends = time.monotonic() + START_SECONDS
    while not ready():
        if not process.alive() or time.monotonic() > ends:
            raise RuntimeError(process.log.read_text(errors="replace")[-2000:])
        time.sleep(0.02)


# --- PostgreSQL -----------------------------------------------------------------------


def postgresql_binaries() -> Path | None:
    """Return the folder of the newest server's programs; they are not on PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    return None if beside is None else Path(beside).parent


def no_postgresql() -> str:
    """Return why no PostgreSQL server can be started; "" if it can."""
    if postgresql_binaries() is None:
        return "no PostgreSQL server: apt-get install postgresql"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "as root, PostgreSQL needs setpriv"
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "as root, PostgreSQL needs the user postgres"
    return ""


class Postgresql:
    """One PostgreSQL server with its own data, on a port of loopback.

    Parameters
    ----------
    options : str
        ``name=value``, as in postgresql.conf.
    password : str
        Asked of everybody; none if empty.
    data_mib, wal_mib : int
        Size of a disk of its own for data, or for the write-ahead log; 0: none.
    """

    def __init__(
        self,
        *options: str,
        password: str = "",
        data_mib: int = 0,
        wal_mib: int = 0,
    ) -> None:
        binaries = postgresql_binaries()
        if binaries is None:
            raise RuntimeError(no_postgresql())
        self._binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="fedsecure-postgresql-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self.port = free_port()
        self.options = options
        self._password = password
        secret = self.folder / "password"
        secret.write_text(f"{password}\n")
        secret.chmod(0o644)  # of a test, in a folder of mode 0700
        asked = [f"--pwfile={secret}", "--auth=scram-sha-256"]
        self.disk: SmallDisk | None = None
        place = []
        if data_mib or wal_mib:
            where = self.folder / ("data" if data_mib else "wal")
            owner = "postgres" if os.geteuid() == 0 else ""
            self.disk = SmallDisk(where, data_mib or wal_mib, owner)
            place = [] if data_mib else [f"--waldir={where}", "--wal-segsize=1"]
        self._run_once(
            [
                f"{binaries}/initdb",
                f"--pgdata={self.folder}/data",
                "--username=fed",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",  # of the empty database only
                *(asked if password else ["--auth=trust"]),
                *place,
            ]
        )
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://fed@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        given = [f"-c{option}" for option in self.options]
        self.process = Process(
            [
                f"{self._binaries}/postgres",
                f"-D{self.folder}/data",
                f"-p{self.port}",
                "-clisten_addresses=127.0.0.1",
                f"-cunix_socket_directories={self.folder}",
                *given,
            ],
            self.folder / "log",
            user="postgres",
        )
        until(self.answers, self.process)

    def stop(self) -> None:
        """Stop as an operator would, who does not wait for sessions."""
        self.process.end(signal.SIGINT)

    def crash(self) -> None:
        """Lose every process of the server at once."""
        self.process.kill()

    def run(
        self, statement: str, schema: object = "public"
    ) -> list[tuple[object, ...]]:
        """Run one statement as the owner; return its rows."""
        with self._connect() as session:
            session.execute("SELECT set_config('search_path', %s, false)", [schema])
            cursor = session.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """End it and remove its folder."""
        self.process.end(signal.SIGQUIT)  # nobody needs its last checkpoint
        if self.disk is not None:
            self.disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        url = make_conninfo(self.url, password=self._password or None)
        return psycopg.connect(url, autocommit=True, connect_timeout=2)

    def _run_once(self, command: list[str]) -> None:
        process = Process(command, self.folder / "initdb.log", user="postgres")
        if process._child.wait(60):
            raise RuntimeError(process.log.read_text(errors="replace"))

    def answers(self) -> bool:
        """Return whether it takes a session now."""
        try:
            self._connect().close()
        except psycopg.Error:
            return False
        return True


@contextlib.contextmanager
def postgresql(
    *options: str, password: str = "", data_mib: int = 0, wal_mib: int = 0
) -> Iterator[Postgresql]:
    """Yield a server that is ended afterwards."""
    server = Postgresql(*options, password=password, data_mib=data_mib, wal_mib=wal_mib)
    try:
        yield server
    finally:
        server.close()


# --- etcd -----------------------------------------------------------------------------


def no_etcd() -> str:
    """Return why no etcd can be started; "" if it can."""
    return "" if shutil.which("etcd") else "no etcd: apt-get install etcd-server"


class Etcd:
    """A cluster of etcd members with their own data, on ports of loopback.

    Parameters
    ----------
    size : int
        Members.
    options : str
        Further options of each member.
    tls : Path, optional
        A folder with ca.pem, server.pem and server.key: clients need certificates too.
    disk_mib : int
        Size of a disk of its own for the first member; 0: none.
    """

    def __init__(
        self, size: int, *options: str, tls: Path | None = None, disk_mib: int = 0
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fedsecure-etcd-"))
        self.disk = SmallDisk(self.folder / "e0", disk_mib) if disk_mib else None
        scheme = "http" if tls is None else "https"
        self.ports = [(free_port(), free_port()) for _ in range(size)]
        self.endpoints = [f"{scheme}://127.0.0.1:{client}" for client, _ in self.ports]
        self._peers = [f"http://127.0.0.1:{peer}" for _, peer in self.ports]
        self._options = list(options)
        if tls is not None:
            self._options += [
                f"--cert-file={tls}/server.pem",
                f"--key-file={tls}/server.key",
                f"--trusted-ca-file={tls}/ca.pem",
                "--client-cert-auth",
            ]
        self.members = [self._member(number) for number in range(size)]
        for number in range(size):
            until(lambda n=number: self._listens(n), self.members[number])  # type: ignore[misc]

    def start(self, number: int) -> None:
        """Start a member again, with the data it has."""
        self.members[number] = self._member(number)
        until(lambda: self._listens(number), self.members[number])

    def leader(self) -> int:
        """Return which member leads the cluster."""
        for number, endpoint in enumerate(self.endpoints):
            with contextlib.suppress(requests.RequestException, LookupError):
                answer = requests.post(
                    f"{endpoint}/v3/maintenance/status", json={}, timeout=5
                ).json()
                if answer["header"]["member_id"] == answer["leader"]:
                    return number
        raise RuntimeError("no member leads")

    def close(self) -> None:
        """End the members and remove their folder."""
        for member in self.members:
            if member.alive():
                member.kill()
        if self.disk is not None:
            self.disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _member(self, number: int) -> Process:
        names = ",".join(f"e{n}={peer}" for n, peer in enumerate(self._peers))
        command = [
            "etcd",
            f"--name=e{number}",
            f"--data-dir={self.folder}/e{number}",
            f"--listen-client-urls={self.endpoints[number]}",
            f"--advertise-client-urls={self.endpoints[number]}",
            f"--listen-peer-urls={self._peers[number]}",
            f"--initial-advertise-peer-urls={self._peers[number]}",
            f"--initial-cluster={names}",
            "--initial-cluster-state=new",
            "--heartbeat-interval=100",
            "--election-timeout=1000",
            *self._options,
        ]
        return Process(command, self.folder / f"e{number}.log")

    def _listens(self, number: int) -> bool:
        # etcd opens its client port when it has joined and a leader is known.
        try:
            socket.create_connection(("127.0.0.1", self.ports[number][0]), 1).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def etcd(
    size: int = 3, *options: str, tls: Path | None = None, disk_mib: int = 0
) -> Iterator[Etcd]:
    """Yield a cluster that is ended afterwards."""
    cluster = Etcd(size, *options, tls=tls, disk_mib=disk_mib)
    try:
        yield cluster
    finally:
        cluster.close()
