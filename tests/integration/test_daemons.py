"""The daemons as an operator meets them: real processes, real ports, exit codes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsecure.access.kit import read_kit
from fedsecure.composition import composed
from fedsecure.daemons.supervisor import descendants, named
from fedsecure.disk import SystemDisk
from fedsecure.experiment import make_plan
from fedsecure.provision.kits import provision
from tests.fakes import takeover
from tests.fakes.ports import free_port
from tests.fakes.servers import Etcd, etcd, no_etcd

pytestmark = [pytest.mark.integration, pytest.mark.flower]

NOW = datetime.now(UTC)
PATIENCE = 40.0
PROGRAM = [sys.executable, "-m", "fedsecure.cli"]


def make_kits(folder: Path, host: str = "127.0.0.1", now: datetime = NOW) -> Path:
    """Provision two aggregators and a site; write their configurations."""
    rows = [
        f"  - {{name: {name}, host: {where}, port: {free_port()}, organisation: Hub}}"
        for name, where in (("agg-1", host), ("agg-2", "second.example.org"))
    ]
    text = ["name: heart", "aggregators:", *rows, "sites:"]
    text.append("  - {name: site-01, organisation: North}")
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "federation.yaml"
    description.write_text("\n".join(text) + "\n", encoding="utf-8")
    kits = folder / "kits"
    provision(description, kits, now)
    config = composed(["federation.sites=1", "federation.max_rows=0", "privacy=none"])
    values = {
        "plan": make_plan(config, kits, []),
        "deadline": 60.0,
        "lease": str(folder / "lease"),
        "ttl": 3.0,
        "stores": [str(folder / "store")],
        "quorum": 1,
    }
    (kits / "agg-1" / "aggregator.json").write_text(json.dumps(values), "utf-8")
    node = json.dumps({"data": {"name": "digits"}})
    (kits / "site-01" / "node.json").write_text(node, "utf-8")
    return kits


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    return make_kits(tmp_path)


def refused(command: str, kit: Path) -> tuple[int, str]:
    """Start a daemon that must not start; return its exit code and what it said."""
    done = subprocess.run(
        [*PROGRAM, command, "--kit", str(kit)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "fedsecure:" in line]
    assert "Traceback" not in done.stderr
    assert len(said) == 1, done.stderr
    return done.returncode, said[0]


def address(kits: Path) -> tuple[str, int]:
    kit = read_kit(kits / "agg-1", SystemDisk(), lambda p: p.stat().st_mode)
    host, _, port = kit.roster.members["agg-1"].address.rpartition(":")
    return host, int(port)


@pytest.fixture
def aggregator(kits: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [*PROGRAM, "aggregator", "--kit", str(kits / "agg-1")]
    with subprocess.Popen(command) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if holds():
            return True
        time.sleep(0.05)
    return False


def listens(where: tuple[str, int]) -> bool:
    try:
        socket.create_connection(where, 1.0).close()
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    except OSError:
        return False
    return state[0] != "Z"


def test_an_aggregator_serves_its_port_and_sigterm_leaves_no_process(
    aggregator: subprocess.Popen[bytes], kits: Path
) -> None:
    where = address(kits)
    assert wait_until(lambda: listens(where))
    # SuperLink, SuperExec, ServerApp
    assert wait_until(lambda: len(descendants(aggregator.pid)) >= 3)
    below = descendants(aggregator.pid)
    aggregator.send_signal(signal.SIGTERM)
    assert aggregator.wait(PATIENCE) == 0
    assert [pid for pid in below if alive(pid)] == []
    assert not listens(where)


@pytest.mark.chaos
def test_a_serverapp_that_hangs_is_ended_and_begun_again(
    aggregator: subprocess.Popen[bytes], kits: Path
) -> None:
    state = kits / "agg-1" / "state"
    assert wait_until((state / "pulse").exists)
    (hung,) = named(aggregator.pid, "flwr-serverapp")
    os.kill(hung, signal.SIGSTOP)

    def begun_again() -> bool:
        return bool(set(named(aggregator.pid, "flwr-serverapp")) - {hung})

    assert wait_until(begun_again, 90.0)
    assert not alive(hung)
    assert "the ServerApp hangs" in (state / "daemon.jsonl").read_text()


@pytest.fixture
def cluster() -> Iterator[Etcd]:
    if no_etcd():
        pytest.skip(no_etcd())
    with etcd(1) as made:
        yield made


@pytest.mark.chaos
def test_lease_of_a_killed_serverapp_is_free_before_it_ends(
    cluster: Etcd, kits: Path
) -> None:
    path = kits / "agg-1" / "aggregator.json"
    values = json.loads(path.read_text())
    settings = {"endpoints": cluster.endpoints, "prefix": "/daemon/"}
    values |= {"ttl": 60.0, "engine": {"name": "etcd", **settings}}
    path.write_text(json.dumps(values))
    board = takeover.engine("etcd", {**settings, "trial": False}).leases
    command = [*PROGRAM, "aggregator", "--kit", str(kits / "agg-1")]
    with subprocess.Popen(command) as daemon:
        try:
            assert wait_until(lambda: board.read() is not None)
            (app,) = named(daemon.pid, "flwr-serverapp")
            os.kill(app, signal.SIGKILL)
            assert wait_until(lambda: board.read() is None, 10.0)
        finally:
            daemon.kill()
    said = (kits / "agg-1" / "state" / "daemon.jsonl").read_text()
    assert '"event":"vacated"' in said


def test_a_taken_port_is_refused(kits: Path) -> None:
    host, port = address(kits)
    with socket.create_server((host, port)):
        code, said = refused("aggregator", kits / "agg-1")
    assert code == 2
    assert f"port {port} of {host} cannot be used" in said


def test_a_sites_kit_is_no_aggregators(kits: Path) -> None:
    code, said = refused("aggregator", kits / "site-01")
    assert code == 2
    assert "is the kit of site site-01" in said


def test_an_aggregators_kit_is_no_sites(kits: Path) -> None:
    code, said = refused("node", kits / "agg-1")
    assert code == 2
    assert "is the kit of aggregator agg-1" in said


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, now=NOW - timedelta(days=120))
    code, said = refused("aggregator", kits / "agg-1")
    assert code == 2
    assert "expired" in said
    assert "tls.crt" in said or "certificate" in said


@pytest.mark.parametrize(
    ("command", "name"), [("aggregator", "agg-1"), ("node", "site-01")]
)
def test_an_expired_roster_is_refused(command: str, name: str, tmp_path: Path) -> None:
    kits = make_kits(tmp_path, now=NOW - timedelta(days=400))
    code, said = refused(command, kits / name)
    assert code == 2
    assert "roster 1 expired on" in said


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, host="first.example.org")
    for name in ("tls.crt", "tls.key"):
        shutil.copy(kits / "agg-2" / name, kits / "agg-1" / name)
    code, said = refused("aggregator", kits / "agg-1")
    assert code == 2
    assert "first.example.org" in said


@pytest.mark.parametrize(
    ("command", "name"), [("aggregator", "agg-1"), ("node", "site-01")]
)
def test_a_roster_of_another_federation_is_refused(
    command: str, name: str, kits: Path, tmp_path: Path
) -> None:
    other = make_kits(tmp_path / "other")
    shutil.copy(other / "roster.json", kits / name / "roster.json")
    code, said = refused(command, kits / name)
    assert code == 2
    assert "federation" in said


def test_an_aggregator_that_holds_a_sites_secret_stops(kits: Path) -> None:
    shutil.copy(kits / "site-01" / "supernode.key", kits / "agg-1" / "supernode.key")
    code, said = refused("aggregator", kits / "agg-1")
    assert code == 2
    assert "holds supernode.key, which no aggregator may have" in said


def test_a_site_without_a_policy_refuses(kits: Path) -> None:
    (kits / "site-01" / "policy.yaml").unlink()
    code, said = refused("node", kits / "site-01")
    assert code == 3
    assert "no policy, no round" in said


def test_a_site_whose_policy_was_edited_and_not_signed_refuses(kits: Path) -> None:
    with (kits / "site-01" / "policy.yaml").open("a", encoding="utf-8") as policy:
        policy.write("# one more line\n")
    code, said = refused("node", kits / "site-01")
    assert code == 3
    assert "policy" in said


def test_a_refused_site_has_read_no_row(kits: Path) -> None:
    (kits / "site-01" / "policy.yaml.sig").unlink()
    refused("node", kits / "site-01")
    assert not (kits / "site-01" / "state").exists()
