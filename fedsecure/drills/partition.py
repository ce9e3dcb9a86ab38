"""The partition drill: the leader is cut off the engine, both ways, then one way.

Three network namespaces stand for three hosts: one with etcd, one for each member.
nftables drops packets at the leader's host; later it lets them pass again.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.daemons.supervisor import Child, run_to_end
from fedsecure.drills.lease import TTL, Cast, kept_by, shown, verdict
from fedsecure.drills.member import Part
from fedsecure.errors import ProcessFailed
from fedsecure.trainer import JSON

_HUB = "hub"
_PORT = 2379
_START = 30.0
_LOOK = 0.02
_ENOUGH = 2 * TTL
_CHAINS = {"both ways": ("input", "output"), "one way": ("output",)}


class Hosts:
    """Namespaces for an engine and some members, named by this process."""

    def __init__(self, names: Sequence[str], log: Path) -> None:
        self._log = log
        self._tag = f"fed{os.getpid() % 100000}"
        self._names = [_HUB, *names]
        self.addresses = {n: f"10.213.{i}.1" for i, n in enumerate(names, 1)}

    def make(self) -> None:
        """Make the namespaces and a cable from each member's to the engine's."""
        for name in self._names:
            self._ip("netns", "add", self._of(name))
            self._inside(name, "ip", "link", "set", "lo", "up")
        for name, address in self.addresses.items():
            near, far = f"{self._tag}{name[:2]}n", f"{self._tag}{name[:2]}f"
            self._ip("link", "add", near, "type", "veth", "peer", "name", far)
            ends = ((_HUB, near, address), (name, far, f"{address[:-1]}2"))
            for host, cable, own in ends:
                self._ip("link", "set", cable, "netns", self._of(host))
                self._inside(host, "ip", "addr", "add", f"{own}/30", "dev", cable)
                self._inside(host, "ip", "link", "set", cable, "up")

    def cut(self, name: str, chains: Sequence[str]) -> None:
        """Drop what comes into a host, or leaves it, or both."""
        self._inside(name, "nft", "add", "table", "inet", "drill")
        for chain in chains:
            rule = f"{{ type filter hook {chain} priority 0; policy drop; }}"
            self._inside(name, "nft", "add", "chain", "inet", "drill", chain, rule)

    def heal(self, name: str) -> None:
        """Let everything pass again."""
        self._inside(name, "nft", "delete", "table", "inet", "drill")

    def remove(self) -> None:
        """Remove the namespaces; cables go with them."""
        for name in self._names:
            if Path("/run/netns", self._of(name)).exists():
                self._ip("netns", "del", self._of(name))

    def prefix(self, name: str) -> list[str]:
        """Return what a command begins with that runs on a host."""
        return ["ip", "netns", "exec", self._of(name)]

    def _of(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _inside(self, name: str, *command: str) -> None:
        run_to_end(command[0], [*self.prefix(name), *command], self._log)

    def _ip(self, *words: str) -> None:
        run_to_end("ip", ["ip", *words], self._log)


def rehearse(folder: Path, clock: Clock) -> dict[str, JSON]:
    """Carry one repetition out: two cuts, each healed; the roles change in between."""
    hosts = Hosts(("east", "west"), folder / "hosts.log")
    cast = Cast(folder, clock, clock.now())
    engine: Child | None = None
    try:
        hosts.make()
        engine = _etcd(hosts, cast)
        parts = {n: _part(n, a) for n, a in hosts.addresses.items()}
        for name, part in parts.items():
            cast.start(part, hosts.prefix(name))
            cast.until(f"{name} to stand by", partial(cast.says, name, "stands by"))
        promises, seconds = _cuts(cast, hosts, list(parts))
        cast.end()
        name, part = next(iter(parts.items()))
        broken = verdict(cast, kept_by(cast, part, hosts.prefix(name)))
    finally:
        cast.end()
        if engine is not None:
            engine.kill()
        hosts.remove()
    return shown(cast, broken, promises, {"seconds_to_leader": seconds})


def _cuts(
    cast: Cast, hosts: Hosts, names: Sequence[str]
) -> tuple[list[str], float | None]:
    promises: list[str] = []
    longest: float | None = None
    for how, chains in _CHAINS.items():
        cast.until("a leader", lambda: cast.leader() is not None)
        leader, term = cast.leader() or ("", 0)
        other = next(name for name in names if name != leader)
        cast.until("its writes", partial(cast.says, leader, "wrote", term - 1))
        begun = cast.note(f"{leader} is cut off, {how}")
        hosts.cut(leader, chains)
        cast.until("a successor", partial(cast.says, other, "leads", term))
        led = max(x["now"] for x in cast.lines(other) if x["event"] == "leads")
        longest = max(longest or 0.0, float(led) - begun)
        cast.until("the old one to stop", partial(cast.says, leader, "over", term - 1))
        stopped = max(x["now"] for x in cast.lines(leader) if x["event"] == "over")
        promises += overstayed(leader, stopped - begun, how)
        cast.note(f"{leader} is healed")
        hosts.heal(leader)
        cast.until("writes", partial(cast.says, other, "wrote", term))
        cast.clock.sleep(TTL)
    return promises, longest


def overstayed(leader: str, seconds: float, how: str) -> list[str]:
    """Return what is wrong with how long a leader led that was cut off."""
    if seconds <= _ENOUGH:
        return []
    return [f"{leader} led on for {seconds:.1f} s, cut off {how}: at most {_ENOUGH:g}"]


def _part(name: str, address: str) -> Part:
    settings: Mapping[str, object] = {
        "endpoints": [f"http://{address}:{_PORT}"],
        "insecure_plain": True,
        "timeout": 1.0,
        "trial": False,
    }
    return Part(name, "etcd", settings, TTL)


def _etcd(hosts: Hosts, cast: Cast) -> Child:
    own = [f"http://{a}:{_PORT}" for a in (*hosts.addresses.values(), "127.0.0.1")]
    command = [
        *hosts.prefix(_HUB),
        "etcd",
        f"--data-dir={cast.folder}/etcd",
        f"--listen-client-urls={','.join(own)}",
        f"--advertise-client-urls={','.join(own)}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--heartbeat-interval=100",
        "--election-timeout=1000",
    ]
    child = Child("etcd", command, dict(os.environ), cast.folder / "etcd.log")
    ends = cast.clock.now() + _START
    while not _listens(child):
        if child.ended() is not None or cast.clock.now() > ends:
            raise ProcessFailed(f"etcd does not start; see {cast.folder}/etcd.log")
        cast.clock.sleep(_LOOK)
    return child


def _listens(child: Child) -> bool:
    """Return whether a socket listens at etcd's port, in the child's own namespace."""
    table = Path(f"/proc/{child.pid}/net/tcp").read_text(encoding="ascii")
    rows = [line.split() for line in table.splitlines()[1:]]
    return any(r[1].endswith(f":{_PORT:04X}") and r[3] == "0A" for r in rows)
