"""Network namespaces as hosts on one switch: names, a firewall, cables that are cut."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

_SWITCH = "switch"
_CUT = """
table inet cut {
  chain in { type filter hook input priority -10; policy drop; iifname "lo" accept; }
  chain out { type filter hook output priority -10; policy drop; oifname "lo" accept; }
}
"""


def require_hosts() -> None:
    """Skip the test that asks where no namespaces can be made."""
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install iproute2 nftables")
    tried = f"fed{os.getpid() % 100000}-try"
    done = _ran(["ip", "netns", "add", tried])
    if done.returncode:
        pytest.skip(f"no CAP_NET_ADMIN, no hosts: {done.stderr.strip()}")
    _ran(["ip", "netns", "del", tried])


class Hosts:
    """One namespace a host, each with one address and the names of all.

    Parameters
    ----------
    names : mapping of str to str
        Host -> its name in the network.
    log : Path
        Where the output of `ip` and `nft` goes.
    """

    def __init__(self, names: Mapping[str, str], log: Path) -> None:
        self._tag = f"fed{os.getpid() % 100000}"
        self._log = log
        self.names = dict(names)
        self.addresses = {
            name: f"10.214.0.{number}" for number, name in enumerate(names, 11)
        }

    def make(self) -> None:
        """Make the switch, the hosts and a cable from each host to it."""
        self._do("ip", "netns", "add", self._of(_SWITCH))
        self._in(_SWITCH, "ip", "link", "add", "br0", "type", "bridge")
        self._in(_SWITCH, "ip", "link", "set", "br0", "up")
        lines = [f"{a} {self.names[n]}" for n, a in self.addresses.items()]
        table = "\n".join(["127.0.0.1 localhost", *lines, ""])
        for number, (name, address) in enumerate(self.addresses.items()):
            folder = Path(
                "/etc/netns", self._of(name)
            )  # `ip netns exec` lays it on /etc
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(table)
            self._do("ip", "netns", "add", self._of(name))
            self._in(name, "ip", "link", "set", "lo", "up")
            near, far = f"{self._tag}n{number}", f"{self._tag}f{number}"
            self._do("ip", "link", "add", near, "type", "veth", "peer", "name", far)
            self._do("ip", "link", "set", far, "netns", self._of(_SWITCH))
            self._in(_SWITCH, "ip", "link", "set", far, "master", "br0", "up")
            self._do("ip", "link", "set", near, "netns", self._of(name))
            self._in(name, "ip", "link", "set", near, "name", "eth0")
            self._in(name, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
            self._in(name, "ip", "link", "set", "eth0", "up")

    def protect(self, name: str, rules: Path) -> None:
        """Load a firewall at a host."""
        self._in(name, "nft", "-f", str(rules))

    def cut(self, name: str) -> None:
        """Drop everything that comes into a host or leaves it, loopback excepted."""
        # One process, one transaction: a round goes on while a cut is being made.
        self._in(name, "nft", "-f", "-", entered=_CUT)

    def heal(self, name: str) -> None:
        """Let everything pass again."""
        self._in(name, "nft", "delete", "table", "inet", "cut")

    def prefix(self, name: str) -> list[str]:
        """Return what a command begins with that runs on a host."""
        return ["ip", "netns", "exec", self._of(name)]

    def listening(self, name: str) -> list[str]:
        """Return the addresses of a host's listening sockets, ``address:port``."""
        done = self._in(name, "ss", "-Hltn")
        return [line.split()[3] for line in done.splitlines()]

    def reaches(self, name: str, other: str, port: int) -> bool:
        """Return whether a connection from one host to another is made."""
        ask = (
            "import socket, sys;"
            "socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.0)"
        )
        target = [self.names[other], str(port)]
        command = [*self.prefix(name), "python3", "-c", ask, *target]
        return _ran(command).returncode == 0

    def run(self, name: str, command: Sequence[str], entered: str = "") -> str:
        """Run a command on a host; return what it printed."""
        return self._in(name, *command, entered=entered)

    def remove(self) -> None:
        """Remove the hosts; cables go with them."""
        for name in (*self.names, _SWITCH):
            if Path("/run/netns", self._of(name)).exists():
                self._do("ip", "netns", "del", self._of(name))
            shutil.rmtree(Path("/etc/netns", self._of(name)), ignore_errors=True)

    def _of(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _in(self, name: str, *command: str, entered: str = "") -> str:
        return self._do(*self.prefix(name), *command, entered=entered)

    def _do(self, *command: str, entered: str = "") -> str:
        done = _ran(command, entered)
        with self._log.open("a") as log:
            log.write(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout


def _ran(command: Sequence[str], entered: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, check=False, input=entered, text=True, timeout=60
    )
