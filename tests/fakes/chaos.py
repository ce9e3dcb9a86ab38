"""Random deaths of a federation's processes, and what its sites' ledgers then say.

A process dies before, in the middle of, or after a durable step, several times a run:
a site, the key custodian, the leader. What left a site is read off the wire.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

from fedsecure.envelope import Kind, parse
from fedsecure.errors import FedsecureError
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.fuses import Died, Fuse

VICTIMS = ("site", "aggregator", "custodian")
CUSTODIAN = "site-1"
_SERVER_STEPS, _SITE_STEPS = 74, 30


@dataclass
class Toll:
    """Kills, and what the ledgers missed or charged too much.

    Attributes
    ----------
    kills : Counter
        By victim.
    released : int
        Updates that left a site.
    undercounts : int
        Updates that left a site without a charge in its ledger, or for which training
        read rows before the charge.
    overcharges : int
        Charges for which no update ever left.
    worst : int
        Most overcharges in one run above the kills of that run; at most 0 is promised.
    """

    kills: Counter[str] = field(default_factory=Counter)
    released: int = 0
    undercounts: int = 0
    overcharges: int = 0
    worst: int = -1000

    @property
    def total(self) -> int:
        return sum(self.kills.values())


def wreak(toll: Toll, seed: int, kills: int, sites: int = 2) -> None:
    """Run one federation to its end through up to `kills` deaths; add to the toll."""
    dice = random.Random(seed)  # noqa: S311 - moments of death, no secrets
    federation = Federation(sites=sites, rounds=2)
    wire = _tapped(federation)
    leaders: list[Fuse] = []
    for _ in range(kills):
        victim = dice.choice(VICTIMS)
        if victim == "aggregator":
            name = dice.choice(federation.aggregators)
            leaders.append(_fuse(dice, name, _SERVER_STEPS))
            continue
        others = [name for name in federation.sites if name != CUSTODIAN]
        name = CUSTODIAN if victim == "custodian" else dice.choice(others)
        site = federation.sites[name]
        fuse = _fuse(dice, name, _SITE_STEPS)
        site.fuses.append(fuse)
    for site in federation.sites.values():
        if site.fuses:
            site.fuse = site.fuses.popleft()
    _lead(federation, leaders, toll)
    _count(federation, wire, toll)


def _fuse(dice: random.Random, owner: str, steps: int) -> Fuse:
    return Fuse(owner, dies_after=dice.randrange(steps), tears=dice.random() < 0.5)


def _tapped(federation: Federation) -> set[tuple[str, int]]:
    """Return the set of (site, round) whose update leaves; filled as it happens."""
    wire: set[tuple[str, int]] = set()

    def tap(site: str, data: bytes) -> bytes:
        answer = parse(data, MAX_BYTES)
        if answer.kind == Kind.UPDATE:
            wire.add((site, answer.scope.round.number))
        return data

    federation.tamper = tap
    return wire


def _lead(federation: Federation, fuses: list[Fuse], toll: Toll) -> None:
    for fuse in fuses:
        try:
            federation.lead(fuse.owner, fuse)
        except Died:
            toll.kills["aggregator"] += 1
        else:
            break
    try:
        federation.lead("agg-2")
    except FedsecureError as stopped:
        raise AssertionError(f"the run does not end: {stopped}") from stopped


def _count(federation: Federation, wire: set[tuple[str, int]], toll: Toll) -> None:
    before, died = toll.overcharges, 0
    for name, site in federation.sites.items():
        toll.kills["custodian" if name == CUSTODIAN else "site"] += site.deaths
        died += site.deaths
        toll.undercounts += len(site.trainer.unpaid)
        for number in range(1, federation.terms.rounds + 1):
            left, paid = (name, number) in wire, site.reservations(number)
            toll.released += left
            toll.undercounts += max(left - paid, 0)
            toll.overcharges += max(paid - left, 0)
    toll.worst = max(toll.worst, toll.overcharges - before - died)
