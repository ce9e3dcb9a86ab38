"""An aggregator's kit and configuration become a working strategy; blind by check.

Nothing of the site side may be loaded in this process, and a kit that holds a site's
secret stops it (KeyExposed, from `access.kit`).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role, Roster
from fedsecure.assembly.code import own_digest
from fedsecure.assembly.fitness import require_fit
from fedsecure.assembly.places import open_engine, open_rack, open_stores
from fedsecure.assembly.scrubber import Scrubber, make_judge
from fedsecure.assembly.section import read_section
from fedsecure.assembly.wish import HANDOVER, PAUSED, WishFile
from fedsecure.checkpoint.bounded import bounded
from fedsecure.checkpoint.inventory import take
from fedsecure.checkpoint.patience import Bounds, Patience
from fedsecure.checkpoint.rack import Rack
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.checkpoint.vault import Vault
from fedsecure.clock import SystemClock
from fedsecure.config import AggregatorConfig, RunConfig
from fedsecure.disk import SystemDisk
from fedsecure.election import check_ttl
from fedsecure.errors import ConfigurationError, KeyExposed
from fedsecure.flower.campaign import Campaign, Operator
from fedsecure.flower.leader import Terms, Tools
from fedsecure.flower.link import site_nodes
from fedsecure.flower.post import Finder, Round, Timing
from fedsecure.flower.strategy import SecureFedAvg, Wire
from fedsecure.flower.vitals import Vitals
from fedsecure.ledger import Ledger
from fedsecure.metadata import Engine
from fedsecure.monitor.observer import JsonLines, Observer
from fedsecure.monitor.pulse import PULSE, Pulse
from fedsecure.release import plan_digest
from fedsecure.stores import Store
from fedsecure.update import JSON

BLIND = ("fedsecure.he", "fedsecure.custody", "tenseal", "torch", "opacus")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an aggregator finds outside its kit.

    Attributes
    ----------
    engine : Engine
        Lease, journal and head, shared by the aggregators.
    stores : tuple of (str, Store)
        Checkpoint replicas by name.
    state : Path
        Folder of its own ledger and events.
    directory : callable
        Grid -> node ids of the sites online.
    timing : Timing
    show : callable
        Told of every event.
    """

    engine: Engine
    stores: tuple[tuple[str, Store], ...]
    state: Path
    directory: Finder
    timing: Timing = field(default_factory=Timing)
    show: Callable[[Mapping[str, JSON]], None] = lambda _: None
    scrubbed: bool = False
    """Whether the leader reads the stores again in the background."""


def build_strategy(
    kit: Kit, config: AggregatorConfig, around: Surroundings
) -> SecureFedAvg:
    """Return the strategy of one aggregator.

    Raises
    ------
    ConfigurationError
        A store is not usable, or the replicas share a device and must not.
    """
    kit.require(Role.AGGREGATOR)
    require_fit(config, around.stores, kit.roster.federation)
    clock = SystemClock()
    roster = kit.roster
    rack = open_rack(kit, config)
    replicas = Replicas(around.stores, config.quorum)
    vault = _vault(kit, replicas, rack, config.code_before)
    ledger = Ledger.open(
        around.state / "ledger.jsonl", kit.name, kit.signing, SystemDisk(), clock
    )
    observer = JsonLines(around.state / "events.jsonl", kit.name, clock, around.show)
    terms = read_terms(config, roster)
    vitals = Vitals(check_ttl(config.ttl), clock, _teller(observer))
    campaign = _campaign(kit, config, around, vitals)
    tools = _tools(kit, terms, around.engine, vault, ledger, observer)
    if around.scrubbed:
        judge, heads = make_judge(kit, rack), around.engine.journal.head
        copies = bounded(around.stores, Patience(clock, Bounds()))
        Scrubber(
            lambda: take(copies, judge, heads),
            config.scrub_mb_per_s,
            clock,
            observer,
            ledger,
            busy=lambda: (
                campaign.wait(0.0) is None
            ),  # a standby leaves it to the leader
        ).start()

    def sent(group: str, site: str, size: int) -> None:
        observer.note("sent", {"group": group, "site": site, "bytes": size})

    wire = Wire(
        around.directory,
        around.timing,
        sent=sent,
        aggregators=tuple(a.name for a in roster.of(Role.AGGREGATOR)),
        carry_from=int(config.carry_from_mb * 1e6),
    )
    return SecureFedAvg(terms, tools, campaign, wire, vitals)


def from_run_config(run_config: Mapping[str, object]) -> SecureFedAvg:
    """Return the strategy of the kit that a run's configuration names.

    What `server/app.py` calls in the ServerApp's own process.

    Raises
    ------
    ConfigurationError, KitError
        No kit, or not an aggregator's.
    KeyExposed
        The kit or the process could open an update.
    """
    path = Path(str(run_config.get("kit") or ""))
    if not path.is_absolute():
        raise ConfigurationError(
            f"run config kit={str(path)!r}, must be a kit's folder"
        )
    kit = read_kit(path, SystemDisk(), lambda p: p.stat().st_mode)
    config = read_config(kit)
    keys = {m.supernode.encode(): m.name for m in kit.roster.of(Role.SITE)}
    around = Surroundings(
        open_engine(config),
        open_stores(config),
        kit.state,
        lambda grid: lambda: site_nodes(grid, keys),
        scrubbed=True,
    )
    refuse_sight()
    return build_strategy(kit, config, around)


def read_config(kit: Kit) -> AggregatorConfig:
    """Return the checked ``aggregator.json`` beside a kit.

    Raises
    ------
    ConfigurationError
        Missing, not JSON, or a value out of bounds.
    """
    path = kit.path / "aggregator.json"
    found = read_section(AggregatorConfig, path)
    if found is None:
        raise ConfigurationError(
            f"{path} is missing: it says which run to serve; `fedsecure run "
            "backend=deployment` writes it"
        )
    return found


def aggregator_config(
    config: RunConfig, plan: Mapping[str, JSON], folder: Path
) -> AggregatorConfig:
    """Return what a run's aggregators are told, beside their kits.

    Parameters
    ----------
    folder : Path
        Where lease and stores lie unless the configuration names other places.
    """
    store = config.store
    default = [str(folder / "stores" / str(i + 1)) for i in range(store.replicas)]
    return AggregatorConfig(
        plan=dict(plan),
        deadline=config.federation.deadline,
        lease=str(folder / "lease"),
        ttl=config.lease.ttl,
        stores=[*store.buckets] or [*(store.paths or default)],
        quorum=store.quorum,
        require_distinct_devices=store.require_distinct_devices,
        engine=config.lease,
        scrub_mb_per_s=store.scrub_mb_per_s,
        carry_from_mb=store.carry_from_mb,
        keep=store.keep,
        kek=store.kek,
        kek_before=store.kek_before,
    )


def read_terms(config: AggregatorConfig, roster: Roster) -> Terms:
    """Return what the leader runs, from the plan's public fields.

    Raises
    ------
    ConfigurationError
        The plan names a site that has no kit, or is of another federation.
    """
    plan = config.plan
    try:
        sites = tuple(str(site) for site in plan["sites"])
        strangers = sorted(set(sites) - set(roster.members))
        if strangers:
            raise ConfigurationError(
                f"the plan asks for {', '.join(strangers)}, which have no kit: "
                "provision them or lower federation.sites"
            )
        if plan["federation"] != roster.federation:
            raise ConfigurationError("the plan is of another federation than the kit")
        return Terms(
            run=str(plan["run"]),
            plan=plan,
            plan_digest=plan_digest(plan),
            rounds=int(plan["rounds"]),
            min_contributors=int(plan["min_contributors"]),
            max_contributors=int(plan["encryption"]["max_contributors"]),
            sites=sites,
            custodians=tuple(str(site) for site in plan["custodians"]),
            deadline=config.deadline,
            threshold=int(plan["encryption"]["masking_threshold"]),
            revoked=frozenset(roster.revoked),
        )
    except KeyError as missing:
        raise ConfigurationError(f"the plan has no field {missing}") from missing


def refuse_sight() -> None:
    """Stop if the process has loaded anything that could open an update.

    Raises
    ------
    KeyExposed
        Names the module.
    """
    seen = [name for name in BLIND if name in sys.modules]
    if seen:
        raise KeyExposed(
            f"this aggregator's process has loaded {', '.join(seen)}: it must not be "
            "able to open an update"
        )


def _campaign(
    kit: Kit, config: AggregatorConfig, around: Surroundings, vitals: Vitals
) -> Campaign:
    clock = SystemClock()
    pulse = Pulse(kit.state / PULSE, clock)

    def beat() -> None:
        # A round that hangs does not end by itself: its supervisor starts all anew.
        if not vitals.stuck:
            pulse.beat()

    return Campaign(
        around.engine.leases,
        kit.name,
        kit.roster.member(kit.name, Role.AGGREGATOR).address,
        config.ttl,
        clock,
        ailment=vitals.ailment,
        operator=Operator(
            WishFile(kit.state, PAUSED, SystemDisk()).wanted,
            WishFile(kit.state, HANDOVER, SystemDisk()),
        ),
        beat=beat,
    )


def _teller(observer: Observer) -> Callable[[str], None]:
    """Return what writes of an ailment, and of its end."""

    def tell(ailment: str) -> None:
        observer.note("unwell" if ailment else "well", {"reason": ailment})

    return tell


def _vault(kit: Kit, replicas: Replicas, rack: Rack, before: Sequence[str]) -> Vault:
    members = kit.roster.members.values()
    return Vault(
        replicas,
        kit.name,
        kit.signing,
        kit.box,
        {m.name: m.box for m in kit.roster.of(Role.AGGREGATOR)},
        {m.name: m.signing for m in members if m.role == Role.AGGREGATOR},
        SystemClock(),
        rack=rack,
        app=own_digest(SystemDisk()),
        app_before=before,
        rosters=Rosters.of(kit),
    )


def _tools(
    kit: Kit,
    terms: Terms,
    engine: Engine,
    vault: Vault,
    ledger: Ledger,
    observer: Observer,
) -> Callable[[Callable[[str], Round]], Tools]:
    # A revoked site's too: what it sent before still counts in the round it was for.
    keys = {site: kit.roster.members[site].signing for site in terms.sites}

    def with_post(post: Callable[[str], Round]) -> Tools:
        return Tools(
            kit.name,
            kit.signing,
            keys,
            engine.journal,
            vault,
            ledger,
            observer,
            SystemClock(),
            post,
            WishFile.rotate(kit.state, terms.run, SystemDisk()),
        )

    return with_post
