"""Is this machine fit to start? The probes and the judgements of one kit, in order."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.policy import MAX_BYTES, SitePolicy, read_policy
from fedsecure.access.roster import Role
from fedsecure.assembly.section import read_section
from fedsecure.clock import Clock
from fedsecure.config import AggregatorConfig, NodeConfig
from fedsecure.disk import SystemDisk
from fedsecure.doctor import probes, reach
from fedsecure.doctor.domains import (
    judge_bind,
    judge_domains,
    judge_engine,
    judge_ntp,
    judge_reach,
)
from fedsecure.doctor.findings import (
    Finding,
    Level,
    judge_certificate,
    judge_clock,
    judge_origin,
    judge_pair,
    judge_peers,
    judge_places,
    judge_policy,
    judge_port,
    judge_python,
    judge_roster,
    judge_torch,
    judge_versions,
)
from fedsecure.errors import ConfigurationError, FedsecureError, PolicyRefused
from fedsecure.keys import KEY_BYTES, SIGNATURE_BYTES, VerifyKey

PINS = {"flwr": ("1.41", "1.43"), "cryptography": ("50", "51"), "numpy": ("1.26", "3")}
SITE_PINS = {
    "tenseal": ("0.3.18", "0.4"),
    "opacus": ("1.6", "1.7"),
    "dp-accounting": ("0.6", "0.7"),
}
_SOON = timedelta(days=30)


def checks(path: Path | None, clock: Clock) -> list[Finding]:
    """Look at this machine and at a kit; return what was found, in reading order.

    Run it as the user the daemon will run as, on the daemon's machine.

    Parameters
    ----------
    path : Path or None
        A kit's folder; None looks at the machine alone.
    """
    found = [judge_python(sys.version_info[:2])]
    found += judge_versions(probes.installed(PINS), PINS)
    if path is None:
        return found
    try:
        kit = read_kit(path, SystemDisk(), lambda p: p.stat().st_mode)
    except (FedsecureError, OSError) as bad:
        advice = "Mend this first: without a kit nothing else can be looked at."
        return [*found, Finding("kit", Level.FAIL, str(bad), advice)]
    found.append(Finding("kit", Level.OK, f"{path} is of {kit.role} {kit.name}"))
    found.append(judge_roster(kit.roster, _text(clock.wall())))
    found += judge_origin(_origin(kit), steward_key=(path / "steward.key").exists())
    try:
        return found + _look(kit, clock.wall())
    except (ConfigurationError, OSError) as bad:
        advice = "Mend the file that is named, then run doctor again."
        return [*found, Finding("configuration", Level.FAIL, str(bad), advice)]


def worst(found: Sequence[Finding]) -> Level:
    """Return the worst level; OK if there is nothing."""
    levels = [finding.level for finding in found]
    order = (Level.FAIL, Level.WARN)
    return next((level for level in order if level in levels), Level.OK)


def _look(kit: Kit, now: datetime) -> list[Finding]:
    if kit.role == Role.AGGREGATOR:
        return _aggregator(kit, now)
    if kit.role == Role.SITE:
        return _site(kit, now)
    return [*_certificate(kit, None, now), *_peers(kit)]


def _aggregator(kit: Kit, now: datetime) -> list[Finding]:
    address = kit.roster.member(kit.name, Role.AGGREGATOR).address
    host, _, port = address.rpartition(":")
    found = _certificate(kit, host, now)
    problem = probes.listen_problem(host.strip("[]"), int(port))
    itself = probes.dial(kit.name, address, kit.path / "ca.crt")
    found.append(judge_port(address, problem, _urn(kit), itself))
    found.append(judge_bind(host.strip("[]"), reach.addresses(host.strip("[]"))))
    found += [judge_ntp(kept=reach.is_kept_by_ntp()), *_others(kit)]
    config = read_section(AggregatorConfig, kit.path / "aggregator.json")
    if config is None:
        return [*found, *judge_places([probes.place("state", kit.state)])]
    named = [(f"store {n}", path) for n, path in enumerate(config.folders, 1)]
    if config.engine.name == "embedded":
        named.append(("lease", Path(config.lease)))
    named.append(("state", kit.state))
    places = [probes.place(name, path) for name, path in named]
    found += judge_places(places, distinct=config.require_distinct_devices)
    return found if config.engine.name == "embedded" else found + _elsewhere(config)


def _elsewhere(config: AggregatorConfig) -> list[Finding]:
    """Look at what an aggregator of several hosts leans on."""
    servers, engine = reach.servers(config), config.engine.name
    distinct = config.require_distinct_devices
    found = judge_reach(servers, config.quorum)
    found += judge_domains(servers, config.folders, engine, distinct=distinct)
    return [*found, judge_engine(engine, reach.engine_problem(config))]


def _others(kit: Kit) -> list[Finding]:
    """Look at the other aggregators' clocks; one that is down is no fault of this."""
    root = kit.path / "ca.crt"
    others = [m for m in kit.roster.of(Role.AGGREGATOR) if m.name != kit.name]
    peers = [probes.dial(m.name, m.address, root) for m in others]
    return [judge_clock(p.name, p.skew) for p in peers if p.skew is not None]


def _site(kit: Kit, now: datetime) -> list[Finding]:
    found = judge_versions(probes.installed(SITE_PINS), SITE_PINS)
    config = read_section(NodeConfig, kit.path / "node.json")
    device = "auto" if config is None else config.device
    torch = probes.has_torch()
    found.append(judge_torch(device, installed=torch, gpus=probes.gpus()))
    policy = _policy(kit)
    found.append(judge_policy(policy, _text(now), _text(now + _SOON)))
    found += judge_places([probes.place("state", kit.state)])
    return [*found, judge_ntp(kept=reach.is_kept_by_ntp()), *_peers(kit)]


def _peers(kit: Kit) -> list[Finding]:
    root = kit.path / "ca.crt"
    others = kit.roster.of(Role.AGGREGATOR)
    return judge_peers([probes.dial(m.name, m.address, root) for m in others])


def _certificate(kit: Kit, host: str | None, now: datetime) -> list[Finding]:
    disk = SystemDisk()
    chain = disk.read(kit.path / "tls.crt", MAX_BYTES)
    root = disk.read(kit.path / "ca.crt", MAX_BYTES)
    problem = probes.pair_problem(kit.path / "tls.crt", kit.path / "tls.key")
    return [judge_certificate(chain, root, _urn(kit), host, now), judge_pair(problem)]


def _policy(kit: Kit) -> SitePolicy | PolicyRefused:
    disk = SystemDisk()
    try:
        text = disk.read(kit.path / "policy.yaml", MAX_BYTES)
        signature = disk.read(kit.path / "policy.yaml.sig", SIGNATURE_BYTES)
        steward = VerifyKey(disk.read(kit.path / "steward.pub", KEY_BYTES))
        return read_policy(text, signature, steward, kit.name)
    except PolicyRefused as bad:
        return bad
    except FedsecureError as bad:
        return PolicyRefused(f"no policy, no round: {bad}")


def _origin(kit: Kit) -> str:
    facts = json.loads(SystemDisk().read(kit.path / "kit.json", 1 << 20))
    return str(facts.get("origin", ""))


def _urn(kit: Kit) -> str:
    return f"urn:fedsecure:{kit.roster.federation}:{kit.role}:{kit.name}"


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
