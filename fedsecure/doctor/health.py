"""Does this kit's daemon serve right now? For probes of containers and of people.

It asks what the daemon itself would be asked, so nothing new listens anywhere: an
aggregator over TLS at its own address, a node at its relay's socket.
"""

import socket
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.disk import SystemDisk
from fedsecure.doctor import probes
from fedsecure.errors import ConfigurationError, ProcessFailed


def require_serving(path: Path) -> str:
    """Return a sentence if the daemon of a kit serves.

    An aggregator that stands by serves too: whether it leads is no matter of health.

    Raises
    ------
    KitError
        Not a kit that can be read.
    ConfigurationError
        An operator's kit, which has no daemon.
    ProcessFailed
        Nobody answers, or somebody else does.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    if kit.role == Role.AGGREGATOR:
        return _aggregator(kit)
    if kit.role == Role.SITE:
        return _node(kit)
    raise ConfigurationError(f"{path} is the kit of {kit.role} {kit.name}: no daemon")


def _aggregator(kit: Kit) -> str:
    address = kit.roster.member(kit.name, Role.AGGREGATOR).address
    peer = probes.dial(kit.name, address, kit.path / "ca.crt")
    if peer.problem:
        raise ProcessFailed(f"{kit.name} does not serve at {address}: {peer.problem}")
    member = f"urn:fedsecure:{kit.roster.federation}:{kit.role}:{kit.name}"
    if peer.member != member:
        raise ProcessFailed(f"{address} is held by {peer.member or 'a stranger'}")
    return f"{kit.name} serves at {address}"


def _node(kit: Kit) -> str:
    path = kit.state / "relay.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(probes.DIAL_SECONDS)
        try:
            probe.connect(str(path))
        except OSError as bad:
            raise ProcessFailed(
                f"{kit.name} does not serve at {path}: {bad.strerror or bad}"
            ) from bad
    return f"{kit.name} serves at {path}"
