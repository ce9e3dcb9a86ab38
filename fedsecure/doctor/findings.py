"""Facts in, findings out: what is fit to start, how bad it is, and what to do about it.

Nothing here touches the machine, so every decision is tested without one.
"""

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from fedsecure.access.policy import SitePolicy
from fedsecure.access.roster import Roster
from fedsecure.errors import FedsecureError, PolicyRefused, VerificationError
from fedsecure.provision.ca import (
    check_certificate,
    check_person,
    days_left,
    member_of,
)

LOW_BYTES, NO_BYTES = 5 << 30, 1 << 30
WARN_DAYS = (30, 14, 7, 1)  # TRUST.md section 3
SKEW_WARN, SKEW_FAIL = 5.0, 30.0  # seconds, TRUST.md section 6
VOLATILE = {"tmpfs", "ramfs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"}


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do about it ("" if nothing)."""

    name: str
    level: Level
    message: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that must keep what is written into it.

    Attributes
    ----------
    name : str
    path : Path
    device : int
        Number of the block device (``st_dev``).
    kind : str
        File system type, as the kernel names it.
    free : int
        Bytes.
    problem : str
        Why a file could not be written, read back and removed; "" if it could.
    """

    name: str
    path: Path
    device: int
    kind: str
    free: int
    problem: str


@dataclass(frozen=True, slots=True)
class Peer:
    """An aggregator that was dialled.

    Attributes
    ----------
    name, address : str
    member : str
        URN in its certificate; "" if it did not get that far.
    problem : str
        Why not; "" if it answered under this federation's authority.
    skew : float or None
        Seconds its clock is ahead of ours; None if it did not say.
    """

    name: str
    address: str
    member: str
    problem: str
    skew: float | None


def judge_python(version: tuple[int, int]) -> Finding:
    """Judge the interpreter."""
    text = ".".join(str(part) for part in version)
    if (3, 11) <= version < (3, 14):
        return Finding("python", Level.OK, text)
    advice = "Install Python 3.11, 3.12 or 3.13."
    return Finding("python", Level.FAIL, f"{text}, must be 3.11 to 3.13", advice)


def judge_versions(
    installed: Mapping[str, str | None], pins: Mapping[str, tuple[str, str]]
) -> list[Finding]:
    """Judge installed versions against [first, end) of each pin."""
    found = []
    for name, (first, end) in pins.items():
        version = installed.get(name)
        bound = f"must be at least {first} and below {end}"
        advice = f'pip install "{name}>={first},<{end}"'
        if version is None:
            found.append(Finding(name, Level.FAIL, f"not installed, {bound}", advice))
        elif not _numbers(first) <= _numbers(version) < _numbers(end):
            found.append(Finding(name, Level.FAIL, f"{version}, {bound}", advice))
        else:
            found.append(Finding(name, Level.OK, version))
    return found


def judge_roster(roster: Roster, today: str) -> Finding:
    """Judge whether the roster still counts; `today` in UTC, RFC 3339."""
    try:
        roster.require_current(today)
    except VerificationError as bad:
        advice = "Copy the newest roster.json into the kit's roster.d/."
        return Finding("roster", Level.FAIL, str(bad), advice)
    message = f"version {roster.version}, until {roster.expires}"
    return Finding("roster", Level.OK, message)


def judge_origin(origin: str, *, steward_key: bool) -> list[Finding]:
    """Judge where the kit's keys were made, and where the steward's is kept."""
    found = []
    if origin == "central":
        message = "the provisioner made, and has seen, this kit's private keys"
        advice = "Good for a trial among people who trust the provisioner; not beyond."
        found.append(Finding("origin", Level.WARN, message, advice))
    if steward_key:
        message = "steward.key lies in the kit: whoever has the kit can sign a policy"
        advice = "Move it to where only the steward can read it; leave steward.pub."
        found.append(Finding("steward", Level.WARN, message, advice))
    return found


def judge_policy(policy: SitePolicy | PolicyRefused, today: str, soon: str) -> Finding:
    """Judge a site's policy: valid now, and still valid at `soon`; UTC, RFC 3339."""
    advice = "The steward edits policy.yaml and signs it: fedsecure policy sign KIT"
    if isinstance(policy, PolicyRefused):
        return Finding("policy", Level.FAIL, str(policy), advice)
    until = f"valid until {policy.valid_until}"
    if today >= policy.valid_until:
        return Finding("policy", Level.FAIL, f"{until}: no round is served", advice)
    if not policy.projects:
        return Finding("policy", Level.WARN, "it admits no project", advice)
    level = Level.OK if soon < policy.valid_until else Level.WARN
    message = f"{until}, admits {', '.join(sorted(policy.projects))}"
    return Finding("policy", level, message, "" if level == Level.OK else advice)


def judge_certificate(
    chain: bytes, root: bytes, member: str, host: str | None, now: datetime
) -> Finding:
    """Judge a TLS certificate: issuer, host, member, days left.

    Parameters
    ----------
    member : str
        The URN it must carry.
    host : str or None
        The host it must be good for; None for an operator's.
    """
    name = "certificate"
    try:
        if host is None:
            check_person(chain, root, now)
        else:
            check_certificate(chain, root, host, now)
        left, found = days_left(chain, now), member_of(chain)
    except FedsecureError as bad:
        advice = "Take tls.crt, tls.key and ca.crt from this machine's own kit."
        return Finding(name, Level.FAIL, str(bad), advice)
    if found != member:
        advice = "Take tls.crt and tls.key from the kit of this name."
        return Finding(name, Level.FAIL, f"is {found}'s, must be {member}'s", advice)
    passed = [days for days in WARN_DAYS if left <= days]
    if not passed:
        return Finding(name, Level.OK, f"{left:.0f} days left")
    level = Level.FAIL if passed[-1] == WARN_DAYS[-1] else Level.WARN
    message = f"{left:.1f} days left, below the mark of {passed[-1]}"
    advice = "Where the authority is, renew it; then copy tls.crt into this kit."
    return Finding(name, level, message, advice)


def judge_pair(problem: str) -> Finding:
    """Judge whether certificate and private key belong together ("" if they do)."""
    if not problem:
        return Finding("tls key", Level.OK, "belongs to the certificate")
    advice = "Take tls.crt and tls.key from the same kit."
    return Finding("tls key", Level.FAIL, problem, advice)


def judge_port(address: str, problem: int | None, member: str, peer: Peer) -> Finding:
    """Judge an aggregator's own port: free, or held by itself.

    Parameters
    ----------
    problem : int or None
        errno of listening there; None if it could.
    member : str
        The aggregator's URN.
    peer : Peer
        What answers there.
    """
    if problem is None:
        return Finding("port", Level.OK, f"{address} is free")
    if problem == errno.EADDRINUSE and peer.member == member:
        return Finding("port", Level.OK, f"{address}: this aggregator is running")
    if problem == errno.EADDRINUSE:
        advice = f"Find it with `ss -ltnp 'sport = :{address.rpartition(':')[2]}'`."
        return Finding("port", Level.FAIL, f"{address} is held by another", advice)
    advice = "The address must be one of this machine's; see `ip address`."
    message = f"{address}: cannot listen there: {os.strerror(problem)}"
    return Finding("port", Level.FAIL, message, advice)


def judge_peers(peers: Sequence[Peer]) -> list[Finding]:
    """Judge the aggregators a site dials: one must answer, all should."""
    found = []
    answered = any(not peer.problem for peer in peers)
    for peer in peers:
        name = f"aggregator {peer.name}"
        if peer.problem:
            level = Level.WARN if answered else Level.FAIL
            advice = "Start it, or open the firewall from here to this address."
            message = f"{peer.address}: {peer.problem}"
            found.append(Finding(name, level, message, advice))
        else:
            found.append(Finding(name, Level.OK, f"{peer.address} answers"))
        if peer.skew is not None:
            found.append(judge_clock(peer.name, peer.skew))
    return found


def judge_clock(name: str, skew: float) -> Finding:
    """Judge how far a peer's clock is ahead of ours; seconds."""
    message = f"{name} is {skew:+.0f} s from here, refused beyond {SKEW_FAIL:.0f} s"
    if abs(skew) <= SKEW_WARN:
        return Finding("clock", Level.OK, message)
    level = Level.FAIL if abs(skew) > SKEW_FAIL else Level.WARN
    advice = "Let NTP keep both clocks; `timedatectl` shows this one."
    return Finding("clock", level, message, advice)


def judge_places(places: Sequence[Place], *, distinct: bool = False) -> list[Finding]:
    """Judge stores: usable, durable, with room, and not on one device."""
    found = [judge(p) for p in places for judge in (_judge_place, _judge_room)]
    devices: dict[int, str] = {}
    level = Level.FAIL if distinct else Level.WARN
    for place in places:
        if not place.name.startswith("store"):
            continue
        other = devices.setdefault(place.device, place.name)
        if other != place.name:
            message = f"{other} and {place.name} are on one device: one loss takes both"
            advice = f"Move {place.path} to another disk."
            found.append(Finding("replicas", level, message, advice))
    return found


def _judge_place(place: Place) -> Finding:
    where = f"{place.path} ({place.kind})"
    if place.problem:
        advice = "Make it writable for this user, or name another folder."
        if "No space left" in place.problem:
            advice = "Free space on that disk, or name a folder on a larger one."
        return Finding(place.name, Level.FAIL, f"{where}: {place.problem}", advice)
    if place.kind in VOLATILE:
        advice = "Name a folder on a disk: this one is empty after a restart."
        return Finding(place.name, Level.FAIL, f"{where} is memory", advice)
    if place.kind in REMOTE:
        advice = "Use a local disk: locks and fsync over a network promise less."
        return Finding(place.name, Level.WARN, f"{where} is on the network", advice)
    if place.kind == "overlay":
        advice = "Mount a volume: this folder goes with the container."
        message = f"{where} is a container's layer"
        return Finding(place.name, Level.WARN, message, advice)
    return Finding(place.name, Level.OK, f"{where} is written and read back")


def _judge_room(place: Place) -> Finding:
    free = f"{place.path} has {place.free / (1 << 30):.1f} GiB free"
    if place.free >= LOW_BYTES:
        return Finding("room", Level.OK, free)
    level = Level.WARN if place.free >= NO_BYTES else Level.FAIL
    least = f"at least {LOW_BYTES >> 30} GiB"
    return Finding("room", level, f"{free}, should be {least}", f"Free {least}.")


def judge_torch(device: str, *, installed: bool, gpus: int) -> Finding:
    """Judge the torch device a site asks for; a GPU is seen by its device file."""
    wanted = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if not installed:
        advice = 'pip install "fedsecure[site]"'
        return Finding("torch", Level.FAIL, "torch is not installed", advice)
    if wanted is None:
        advice = "Set device to auto, cpu, cuda or cuda:N in node.json."
        return Finding("torch", Level.FAIL, f"device={device!r} is none", advice)
    if device.startswith("cuda") and int(wanted[1] or 0) >= gpus:
        advice = "Set device to auto in node.json, or make the GPU visible here."
        message = f"device={device!r}, this machine shows {gpus} GPUs"
        return Finding("torch", Level.FAIL, message, advice)
    return Finding("torch", Level.OK, f"device={device!r}, {gpus} GPUs seen")


def mount_kind(path: Path, mounts: str) -> str:
    """Return a path's file system type from the text of ``/proc/mounts``."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, found, *_ = [*line.split(" "), "", "", ""]
        point = point.replace("\\040", " ")
        inside = path == Path(point) or Path(point) in path.parents
        if point and inside and len(point) >= len(best):  # the last mount is on top
            best, kind = point, found
    return kind


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version's leading numbers: (2, 13, 0) of "2.13.0+cpu"."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
