"""An aggregator's checkpoints, for an operator beside it: look, repair, rebuild.

The stores are looked at through the aggregator's own keys; sites' models stay theirs.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config
from fedsecure.assembly.code import own_digest
from fedsecure.assembly.diary import kept
from fedsecure.assembly.places import open_engine, open_rack, open_stores
from fedsecure.assembly.scrubber import make_judge
from fedsecure.checkpoint.bounded import bounded
from fedsecure.checkpoint.copies import BAD, Looked, State, mend, plan
from fedsecure.checkpoint.enrolment import doubts, require_newest
from fedsecure.checkpoint.inventory import Inventory, examiner, take
from fedsecure.checkpoint.judge import Family, family
from fedsecure.checkpoint.patience import Bounds, Patience
from fedsecure.checkpoint.rebuild import Rebuilt, rebuilt, write
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.clock import SystemClock
from fedsecure.config import AggregatorConfig
from fedsecure.disk import LockHeld, SystemDisk
from fedsecure.envelope import Kind, Verified
from fedsecure.errors import NotFound, VerificationError
from fedsecure.ledger import Ledger, Record, verify_ledger
from fedsecure.metadata import Engine, Step
from fedsecure.monitor.observer import JsonLines
from fedsecure.release import plan_digest
from fedsecure.server_round import read_detail
from fedsecure.update import JSON


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands on checkpoints work with.

    Attributes
    ----------
    kit : Kit
    config : AggregatorConfig
    engine : Engine
    inventory : Inventory
    """

    kit: Kit
    config: AggregatorConfig
    engine: Engine
    inventory: Inventory

    def name(self, place: int) -> str:
        """Return a store's name."""
        return self.inventory.stores[place][0]

    @property
    def run(self) -> str:
        """The run this aggregator serves."""
        return str(self.config.plan.get("run"))


@dataclass(frozen=True, slots=True)
class Row:
    """One release as `list` prints it.

    Attributes
    ----------
    run, round, sequence, time, writer, size
        Of its manifest; size in bytes, sealed.
    copies : int
        Stores that list both manifest and object.
    stores : int
    """

    run: str
    round: int
    sequence: int
    time: str
    writer: str
    size: int
    copies: int
    stores: int


@dataclass(frozen=True, slots=True)
class Fault:
    """One copy that is not good, or a run whose chain is not whole."""

    store: str
    key: str
    kind: str
    why: str


def open_desk(path: Path) -> Desk:
    """Return what an aggregator's kit sees of engine and stores; changes nothing.

    The chain of a run that the engine does not know is told from its manifests.

    Raises
    ------
    KitError, ConfigurationError
        Not an aggregator's kit, no run was given to it, or its roster is older than
        the one that a checkpoint was made under.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    config = read_config(kit.require(Role.AGGREGATOR))
    engine = open_engine(config, look=True)
    judge = make_judge(kit, open_rack(kit, config))
    stores = bounded(open_stores(config), Patience(SystemClock(), Bounds()))
    found = take(stores, judge, engine.journal.head)
    require_newest(Rosters.of(kit), found)
    return Desk(kit, config, engine, found)


def rows(desk: Desk) -> list[Row]:
    """Return the releases the stores hold, by run and round."""
    held, count = desk.inventory.held, len(desk.inventory.stores)
    out = []
    for _, chain in sorted(desk.inventory.chains.items()):
        for m in chain.links:
            key = f"manifest/{m.run}/{m.sequence:08d}"
            both = held.get(key, frozenset()) & held.get(m.object, frozenset())
            out.append(
                Row(
                    m.run,
                    m.round,
                    m.sequence,
                    m.time,
                    m.writer,
                    m.size,
                    len(both),
                    count,
                )
            )
    return out


def faults(desk: Desk) -> Iterator[Fault]:
    """Yield what is wrong with any copy on any store; reads everything once.

    Updates of an open round count too; those of a round that is over are leftovers.
    """
    stores = desk.inventory.stores
    for place, why in desk.inventory.silent.items():
        yield Fault(stores[place][0], "*", State.SILENT, why)
    yield from _broken(desk)
    for key, why in doubts(Rosters.of(desk.kit), desk.inventory):
        yield Fault("*", key, "roster", why)
    for looked in _due(desk):
        strange = family(looked.key) == Family.FOREIGN
        for copy in looked.copies:
            listed = copy.store not in desk.inventory.silent
            if strange and copy.state == State.MISSING:
                continue  # what is not ours is missed nowhere
            if copy.state in BAD or (copy.state == State.SILENT and listed):
                yield Fault(stores[copy.store][0], looked.key, copy.state, copy.why)


def repair(desk: Desk, silent: dict[str, str]) -> Iterator[tuple[Looked, int]]:
    """Bring every key to good copies on all stores, and yield what was done.

    A key without one good copy is left as it is: (looked, 0) says so.

    Parameters
    ----------
    silent : dict
        Gets each store that could not be asked, and why: nothing was mended there.
    """
    stores = desk.inventory.stores
    silent |= {stores[at][0]: why for at, why in desk.inventory.silent.items()}
    for looked in _due(desk):
        for copy in looked.copies:
            if copy.state == State.SILENT:
                silent.setdefault(stores[copy.store][0], copy.why)
        steps = plan(looked)
        lost = looked.good is None and any(c.state in BAD for c in looked.copies)
        if steps:
            yield looked, mend(desk.inventory.stores, looked, steps)
        elif lost and family(looked.key) != Family.FOREIGN:
            yield looked, 0


def note(desk: Desk, action: str, facts: Mapping[str, JSON]) -> bool:
    """Write what an operator did into events and ledger.

    Returns
    -------
    bool
        False: the running daemon has the ledger, so only the events say it.
    """
    clock, state = SystemClock(), desk.kit.state
    JsonLines(state / "events.jsonl", desk.kit.name, clock).note(action, facts)
    try:
        ledger = Ledger.open(
            state / "ledger.jsonl",
            desk.kit.name,
            desk.kit.signing,
            SystemDisk(),
            clock,
        )
    except LockHeld:
        return False
    with contextlib.closing(ledger):
        ledger.append(f"checkpoint.{action}", desk.run, run=desk.run, detail=facts)
    return True


def rebuild_engine(desk: Desk) -> tuple[Rebuilt, int]:
    """Fill a new engine with the run of a kit; return what was written and its term.

    Raises
    ------
    VerificationError
        The stores that answer do not hold all of it.
    ConfigurationError
        The engine is not lost, somebody leads, or what was released was made under
        another configuration, by other code, or under a roster ours may not follow.
    """
    inventory, run = desk.inventory, desk.run
    too_few = len(inventory.stores) - desk.config.quorum + 1
    answering = len(inventory.stores) - len(inventory.silent)
    if answering < too_few:
        raise VerificationError(
            f"{answering} of {len(inventory.stores)} stores answer, {too_few} must: a "
            "release may be on the others only"
        )
    if run in inventory.broken:
        raise VerificationError(inventory.broken[run])
    if run not in inventory.chains:
        raise VerificationError(
            f"run {run}: no manifest on any store that answers; nothing was released, "
            "so the run can begin anew"
        )
    links = inventory.chains[run].links
    if links:
        ours = plan_digest(desk.config.plan).hex()
        links[-1].require(ours, own_digest(SystemDisk()), desk.config.code_before)
        Rosters.of(desk.kit).require_chain(links)
    diary = kept(desk.kit.state, run, SystemDisk())
    made = rebuilt(inventory.chains[run], _begins(desk), _lines(desk.kit), diary)
    address = desk.kit.roster.member(desk.kit.name, Role.AGGREGATOR).address
    return made, write(desk.engine, made, desk.kit.name, address)


def _begins(desk: Desk) -> Iterator[Verified]:
    examine, judge = examiner(desk.inventory), desk.inventory.judge
    for key in desk.inventory.held:
        if family(key) == Family.BEGIN:
            good = examine(key).good
            if good is not None:
                message = judge.message(key, good, Kind.BEGIN)
                if message.scope.round.run == desk.run:
                    yield message


def _lines(kit: Kit) -> tuple[Record, ...]:
    try:
        path = kit.state / "ledger.jsonl"
        return verify_ledger(path, SystemDisk(), kit.signing.public)
    except NotFound:
        return ()


def _due(desk: Desk) -> Iterator[Looked]:
    """Yield every key that should be on all stores; an update only while it counts."""
    updates, examine = _open_updates(desk), examiner(desk.inventory)
    for key in desk.inventory.names():
        match family(key):
            case Family.OWN | Family.MARK:
                continue
            case Family.UPDATE if key not in updates:
                continue
            case _:
                yield examine(key)


def _open_updates(desk: Desk) -> set[str]:
    """Return the updates of rounds that are not over: nobody may bring back others."""
    entries = list(desk.engine.journal.entries(desk.run, 0))
    over = {e.round for e in entries if e.step in {Step.SKIP, Step.PUBLISH}}
    return {
        str(read_detail(e)["object"])
        for e in entries
        if e.step == Step.UPDATE and e.round not in over
    }


def _broken(desk: Desk) -> Iterator[Fault]:
    for run, why in sorted(desk.inventory.broken.items()):
        yield Fault("*", f"manifest/{run}/", State.CHANGED, why)
    for run, chain in sorted(desk.inventory.chains.items()):
        if next(desk.engine.journal.entries(run, 0), None) is None:
            why = (
                "the engine does not know this run: if it was lost, "
                "`fedsecure checkpoint restore --engine` makes it again"
            )
            yield Fault("engine", run, State.MISSING, why)
        if chain.missing:
            links = chain.links
            first = f"before {links[0].sequence}" if links else "of the head"
            yield Fault(
                "*",
                f"manifest/{run}/",
                State.MISSING,
                f"no store gives the manifest {first}, {chain.missing[:12]}",
            )
