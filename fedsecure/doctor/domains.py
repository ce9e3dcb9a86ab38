"""Judgements of a layout over several hosts: that the loss of one is no loss.

Nothing here touches the machine or the network: facts in, findings out.
"""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from fedsecure.doctor.findings import Finding, Level
from fedsecure.doctor.reach import Server


def judge_bind(host: str, found: Sequence[str]) -> Finding:
    """Judge where an aggregator will listen.

    Parameters
    ----------
    host : str
        Of its address in the roster; it binds there.
    found : sequence of str
        What that resolves to on this machine.
    """
    name, shown = "listen", ", ".join(found)
    if not found:
        advice = "Put it into DNS or /etc/hosts, as the sites see it."
        return Finding(name, Level.FAIL, f"{host} is no name here", advice)
    parsed = [ipaddress.ip_address(address.split("%")[0]) for address in found]
    if any(address.is_unspecified for address in parsed):
        advice = "Provision the aggregator with the one address that sites dial."
        message = f"{host} is every address of this machine, the stores' side too"
        return Finding(name, Level.WARN, message, advice)
    if any(address.is_loopback for address in parsed) and not _means_loopback(host):
        advice = (
            "Take the name off the line of 127.0.1.1 in /etc/hosts (Debian puts it "
            "there) and give it the address that sites dial."
        )
        message = f"{host} is {shown} here: no site on another machine reaches it"
        return Finding(name, Level.FAIL, message, advice)
    return Finding(name, Level.OK, f"{host} is {shown} here")


def judge_domains(
    servers: Sequence[Server], folders: Sequence[Path], engine: str, *, distinct: bool
) -> list[Finding]:
    """Judge whether one host takes two copies, or an engine's majority, with it.

    Parameters
    ----------
    folders : sequence of Path
        Stores that are folders of this machine.
    engine : str
        The engine's plug: only ``embedded`` is for one machine.
    distinct : bool
        Whether two copies with one host are refused rather than warned of.
    """
    level = Level.FAIL if distinct else Level.WARN
    stores = [server.host for server in servers if server.kind == "store"]
    members = [server.host for server in servers if server.kind == "engine"]
    found = [
        Finding(
            "copies",
            level,
            f"{stores.count(host)} copies are on {host}: one loss takes all of them",
            "Keep each copy at a host, and a power supply, of its own.",
        )
        for host in _twice(stores)
    ]
    found += [
        Finding(
            "engine",
            Level.WARN,
            f"{members.count(host)} of {len(members)} members are on {host}",
            "Put one member on each of three hosts.",
        )
        for host in _twice(members)
    ]
    if folders and engine != "embedded":
        shown = ", ".join(str(folder) for folder in folders)
        advice = "store=s3 with a server on each host; a folder serves one machine."
        message = f"{shown}: an aggregator on another host reads no copy there"
        found.append(Finding("copies", level, message, advice))
    return found


def judge_reach(servers: Sequence[Server], quorum: int) -> list[Finding]:
    """Judge the servers that were dialled: a majority of members, W of the copies.

    Parameters
    ----------
    quorum : int
        Copies that must be written before an object counts.
    """
    found = []
    for kind, least in (("engine", None), ("store", quorum)):
        some = [server for server in servers if server.kind == kind]
        up = sum(not server.problem for server in some)
        needed = len(some) // 2 + 1 if least is None else least
        level = Level.WARN if up >= needed else Level.FAIL
        for server in some:
            at = f"{server.host}:{server.port}"
            if server.problem:
                advice = "Start it, or open the firewall from here to this address."
                found.append(Finding(kind, level, f"{at}: {server.problem}", advice))
            else:
                found.append(Finding(kind, Level.OK, f"{at} answers"))
    return found


def judge_engine(name: str, problem: str) -> Finding:
    """Judge what the engine said when it was asked who leads ("" if it said)."""
    if not problem:
        return Finding("lease", Level.OK, f"{name} says who leads")
    advice = "No round goes on without it: mend the server first, then look again."
    return Finding("lease", Level.FAIL, problem, advice)


def judge_ntp(*, kept: bool | None) -> Finding:
    """Judge whether this machine's clock is kept by NTP; None: it does not say."""
    if kept:
        return Finding("ntp", Level.OK, "the kernel's clock is synchronised")
    what = "does not say" if kept is None else "says no"
    advice = "Install chrony; `chronyc tracking` says how far off the clock is."
    message = f"is the clock synchronised? the kernel {what}"
    return Finding("ntp", Level.WARN, message, advice)


def _means_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _twice(hosts: Sequence[str]) -> list[str]:
    return sorted({host for host in hosts if hosts.count(host) > 1})
