"""A federation as docs/deploy.md lays it out: three hosts, and sites on their own.

Two aggregators and a third member of etcd; on each host an etcd member and one copy of
the checkpoints in S3; TLS everywhere, kits provisioned with the hosts' names, the
firewall of server/deploy in force. The commands are the operator's own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from typer.testing import CliRunner

from fedsecure.cli import app
from fedsecure.daemons.supervisor import Child
from fedsecure.flower.commands import environment
from fedsecure.monitor.observer import read_lines
from tests.fakes.bucket import BUCKET, KEY, SECRET, credentials_file
from tests.fakes.hosts import Hosts
from tests.fakes.weed import weed_path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "server" / "deploy"
DOMAIN = "fed.example"
SERVERS = ("host-1", "host-2", "host-3")
AGGREGATORS = {"agg-1": "host-1", "agg-2": "host-2"}
SITES = ("site-01", "site-02", "site-03")
PORT = 9091
PLAN = (
    "data=breast_cancer",
    "model=logistic",
    f"federation.sites={len(SITES)}",
    "federation.max_rows=0",
    "privacy=none",
    "encryption=bfv",
    "encryption.masking=none",
)
_OWNER = "organisation: o"
_DAEMONS = {"aggregator", "node"}
Event = Mapping[str, object]


class ThreeHosts:
    """The federation; nothing runs before `start`.

    Parameters
    ----------
    folder : Path
        Its own.
    rounds : int
    """

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder = folder
        self.kits = folder / "kits"
        self.rounds = rounds
        places = (*SERVERS, *SITES)
        self.hosts = Hosts({n: f"{n}.{DOMAIN}" for n in places}, folder / "hosts.log")
        self._children: dict[tuple[str, str], Child] = {}
        self.restarts = 0
        self._seen: dict[str, int] = dict.fromkeys(AGGREGATORS, 0)

    def provision(self) -> None:
        """Make kits and certificates, without a network."""
        lines = [
            f"  - {{name: {name}, host: {host}.{DOMAIN}, port: {PORT}, {_OWNER}}}"
            for name, host in AGGREGATORS.items()
        ]
        sites = [f"  - {{name: {name}, {_OWNER}}}" for name in SITES]
        text = ["name: hosts", "aggregators:", *lines, "sites:", *sites, ""]
        (self.folder / "federation.yaml").write_text("\n".join(text))
        _fedsecure("provision", f"{self.folder}/federation.yaml", "-o", f"{self.kits}")
        script, pki = str(DEPLOY / "certificates.sh"), str(self.folder / "pki")
        named = [f"{host}={host}.{DOMAIN},127.0.0.1" for host in SERVERS]
        subprocess.run([script, pki, *named], check=True, capture_output=True)
        for number, name in enumerate(SITES):
            node = {
                "data": {"name": "breast_cancer"},
                "index": number,
                "sites": len(SITES),
            }
            (self.kits / name / "node.json").write_text(json.dumps(node))

    def plan(self) -> None:
        """Write the run into both kits: one text, but for the path of a host's key."""
        endpoints = [f"https://{host}.{DOMAIN}:2379" for host in SERVERS]
        secrets = credentials_file(self.folder)
        buckets = [
            f"{{url: 'https://{host}.{DOMAIN}:8333', bucket: {BUCKET}, prefix: heart,"
            f" credentials: {secrets}, ca: {self.folder}/pki/ca.crt,"
            " timeout: 2, attempts: 1}"
            for host in SERVERS
        ]
        out = self.folder / "aggregator.json"
        _fedsecure(
            "plan",
            "-o",
            str(out),
            f"federation.kits={self.kits}",
            f"federation.rounds={self.rounds}",
            "federation.deadline=60",
            *PLAN,
            "lease=etcd",
            f"lease.endpoints=[{','.join(endpoints)}]",
            f"lease.ca_cert={self.folder}/pki/ca.crt",
            f"lease.cert={self.folder}/pki/OWN/tls.crt",
            f"lease.key={self.folder}/pki/OWN/tls.key",
            "store=s3",
            f"store.buckets=[{','.join(buckets)}]",
        )
        for name, host in AGGREGATORS.items():
            text = out.read_text().replace("/OWN/", f"/{host}/")
            (self.kits / name / "aggregator.json").write_text(text)

    def start(self, *, daemons: bool = True) -> None:
        """Make the hosts, then start what an operator starts, in the same order."""
        self.hosts.make()
        rules = self.folder / "firewall.nft"
        text = (DEPLOY / "firewall.nft").read_text()
        for word, names in (("PEERS", SERVERS), ("SITES", SITES)):
            some = ", ".join(self.hosts.addresses[name] for name in names)
            text = re.sub(rf"define {word} = .*", f"define {word} = {{ {some} }}", text)
        rules.write_text(text)
        for host in SERVERS:
            self.hosts.protect(host, rules)
            self._start(host, "etcd", self._etcd(host))
            self._start(host, "store", self._store(host))
        for host in SERVERS:
            self._make_bucket(host)
        if not daemons:
            return
        for name, host in AGGREGATORS.items():
            self._start_daemon(host, "aggregator", name)
        for name in SITES:
            self._start_daemon(name, "node", name)

    def events(self) -> list[Event]:
        """Return what the aggregators said since the last call, by time."""
        fresh: list[Event] = []
        for name in AGGREGATORS:
            lines = read_lines(self.kits / name / "state" / "events.jsonl")
            fresh += lines[self._seen[name] :]
            self._seen[name] = len(lines)
        return sorted(fresh, key=lambda e: float(str(e["now"])))

    def leads(self, at: str) -> str:
        """Return who leads, as an aggregator's host is told; "" if it cannot say."""
        command = ["-m", "fedsecure.cli", "status", "--kit", str(self.kits / at)]
        try:
            told = self.on(AGGREGATORS[at], *command)
        except RuntimeError:
            return ""
        found = re.search(r"leader\s+(\S+), term", told)
        return found[1] if found else ""

    def serves(self, name: str) -> bool:
        """Return whether `fedsecure health` is content with a member's daemon."""
        host = AGGREGATORS.get(name, name)
        command = ["-m", "fedsecure.cli", "health", "--kit", str(self.kits / name)]
        try:
            self.on(host, *command)
        except RuntimeError:
            return False
        return True

    def on(self, host: str, *arguments: str) -> str:
        """Run this Python on a host; return what it printed."""
        return self.hosts.run(host, [sys.executable, *arguments])

    def lose(self, host: str) -> int:
        """Lose a host for good: no packet more, no process left; return how many."""
        self.hosts.cut(host)
        gone = [key for key in self._children if key[0] == host]
        return sum(len(self._children.pop(key).kill()) for key in gone)

    def stop(self, site: str) -> None:
        """Have a site's daemon stand still, so that no round closes without it."""
        os.kill(self._children[site, "node"].pid, signal.SIGSTOP)

    def resume(self, site: str) -> None:
        """Let it go on."""
        os.kill(self._children[site, "node"].pid, signal.SIGCONT)

    def keep(self) -> None:
        """Do what the units say: start again what failed; servers must not fail."""
        for (host, what), child in [*self._children.items()]:
            status = child.ended()
            if not status:
                continue
            if what not in _DAEMONS:
                log = self.folder / f"{host}-{what}.log"
                raise RuntimeError(
                    f"{host} {what}: {status}\n{log.read_text()[-2000:]}"
                )
            self.restarts += 1
            names = {home: name for name, home in AGGREGATORS.items()}
            self._start_daemon(host, what, names.get(host, host))

    def close(self) -> None:
        """End every process and remove the hosts."""
        for child in reversed([*self._children.values()]):
            child.kill()
        self._children.clear()
        self.hosts.remove()

    def _start(self, host: str, what: str, command: list[str]) -> None:
        log = self.folder / f"{host}-{what}.log"
        given = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        self._children[host, what] = Child(
            f"{what} at {host}", [*self.hosts.prefix(host), *command], given, log
        )

    def _start_daemon(self, host: str, word: str, name: str) -> None:
        kit = self.kits / name
        command = [sys.executable, "-m", f"fedsecure.daemons.{word}", str(kit)]
        log = self.folder / f"{host}-{word}.log"
        self._children[host, word] = Child(
            name,
            [*self.hosts.prefix(host), *command],
            environment(kit / "state" / "home"),
            log,
        )

    def _etcd(self, host: str) -> list[str]:
        own, tls = f"{host}.{DOMAIN}", self.folder / "pki" / host
        address = self.hosts.addresses[host]
        members = ",".join(f"{h}=https://{h}.{DOMAIN}:2380" for h in SERVERS)
        trust = [
            f"--{side}{what}"
            for side in ("", "peer-")
            for what in (
                f"cert-file={tls}/tls.crt",
                f"key-file={tls}/tls.key",
                f"trusted-ca-file={tls}/ca.crt",
                "client-cert-auth",
            )
        ]
        return [
            "etcd",
            f"--name={host}",
            f"--data-dir={self.folder}/etcd-{host}",
            f"--listen-client-urls=https://{address}:2379",
            f"--advertise-client-urls=https://{own}:2379",
            f"--listen-peer-urls=https://{address}:2380",
            f"--initial-advertise-peer-urls=https://{own}:2380",
            f"--initial-cluster={members}",
            "--initial-cluster-state=new",
            "--heartbeat-interval=100",
            "--election-timeout=1000",
            "--auto-compaction-retention=1h",
            "--pre-vote",
            *trust,
        ]

    def _store(self, host: str) -> list[str]:
        """Return the command of fedsecure-store.service, its paths replaced."""
        unit = (DEPLOY / "fedsecure-store.service").read_text()
        found = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
        if found is None:
            raise RuntimeError("the unit has no ExecStart")
        data = self.folder / f"store-{host}"
        (data / "fedsecure-store").mkdir(parents=True)
        actions = ["Admin", "Read", "Write", "List"]
        keys = [{"accessKey": KEY, "secretKey": SECRET}]
        one = {"name": "aggregators", "credentials": keys, "actions": actions}
        (data / "s3.json").write_text(json.dumps({"identities": [one]}))
        for file in ("tls.crt", "tls.key"):
            (data / file).write_bytes((self.folder / "pki" / host / file).read_bytes())
        text = found[1].replace("\\\n", " ").replace("/opt/weed/bin/weed", weed_path())
        for word in ("%S", "%d", "%t"):
            text = text.replace(word, str(data))
        text = text.replace("${ADDRESS}", self.hosts.addresses[host])
        text = text.replace("volumeSizeLimitMB=1024", "volumeSizeLimitMB=64")
        return [*text.split(), *self._inner_ports(host)]

    def _inner_ports(self, host: str) -> list[str]:
        """Return options for the ports on a host's loopback.

        The store's parts also meet at sockets in /tmp that are named by port, and the
        hosts have one /tmp here; under systemd it is private.
        """
        number = SERVERS.index(host)
        return [
            f"-master.port={9433 + number}",
            f"-volume.port={8480 + number}",
            f"-filer.port={8588 + number}",
            f"-s3.port.grpc={18433 + number}",
        ]

    def _make_bucket(self, host: str) -> None:
        made = f"s3.bucket.create -name {BUCKET}\ns3.bucket.list\n"
        number = SERVERS.index(host)
        inner = [
            f"-master=127.0.0.1:{9433 + number}",
            f"-filer=127.0.0.1:{8588 + number}",
        ]
        command = [weed_path(), "shell", *inner]
        until(lambda: BUCKET in self.hosts.run(host, command, made), 60.0)


def until(true: Callable[[], bool], seconds: float, pause: float = 0.1) -> None:
    """Wait until something is so; an error counts as not yet."""
    ends = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            if time.monotonic() > ends:
                raise
        if time.monotonic() > ends:
            raise TimeoutError(f"not so within {seconds:.0f} s")
        time.sleep(pause)


def _fedsecure(*arguments: str) -> None:
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    if done.exit_code:
        raise RuntimeError(done.output)
