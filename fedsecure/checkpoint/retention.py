"""What may leave the stores: complete runs that no rule keeps, and what nobody names.

Runs are kept or removed whole: a site that was away opens releases in order, and a
release alone gives no model. What no manifest or journal names is marked first and
removed after a grace period, as a writer may be about to name it. `sweep` decides and
touches nothing, `carry_out` does one step after the other, each of which may be the
last before a crash.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from fedsecure.checkpoint.chain import Chain
from fedsecure.checkpoint.inventory import Inventory, manifest_key
from fedsecure.checkpoint.judge import Family, family
from fedsecure.errors import AlreadyExists, NotFound, StorageError
from fedsecure.metadata import Head, JournalEntry, Step
from fedsecure.stores import Store

_DAY = 86_400.0
_MARK_BYTES = 64


@dataclass(frozen=True, slots=True)
class Rules:
    """Which complete runs stay: any of the three keeps one.

    Attributes
    ----------
    last : int
        The newest ones.
    days : float
        Those that ended within so many days.
    every : float
        Of the others, the newest in each period of so many days; 0: none.
    grace : timedelta
        How long what nobody names stays after it was marked.
    """

    last: int
    days: float
    every: float
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine says, beside what the stores hold.

    Attributes
    ----------
    complete : frozenset of str
        Runs after whose last release nothing comes.
    named : frozenset of str
        Objects that rows of the journal name and somebody may still read.
    over : frozenset of str
        Updates of rounds that are over: nobody may read them.
    of_run : mapping of str to tuple of str
        Run -> its ``begin/`` objects.
    """

    complete: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    over: frozenset[str] = frozenset()
    of_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Act(StrEnum):
    """What is done to a key on every store."""

    MARK = "mark"
    UNMARK = "unmark"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Due:
    """One step, and why."""

    act: Act
    key: str
    why: str


def is_complete(head: Head | None, entries: Iterable[JournalEntry]) -> bool:
    """Return whether a run has ended: its last release is published, nothing after."""
    if head is None:
        return False
    steps = {(e.round, e.step) for e in entries}
    after = {n for n, step in steps if step == Step.OPEN and n > head.round}
    done = all((n, Step.SKIP) in steps for n in after)
    return done and (head.round, Step.PUBLISH) in steps


def kept(ended: Mapping[str, datetime], rules: Rules, now: datetime) -> set[str]:
    """Return the complete runs that a rule keeps.

    Parameters
    ----------
    ended : mapping of str to datetime
        Run -> time of its last release.
    """
    newest = sorted(ended, key=lambda run: (ended[run], run), reverse=True)
    stay = set(newest[: rules.last])
    stay |= {r for r in newest if now - ended[r] <= timedelta(days=rules.days)}
    if rules.every:
        seen: set[int] = set()
        for run in newest:
            period = int(ended[run].timestamp() // (rules.every * _DAY))
            if run not in stay and period not in seen:
                stay.add(run)
            seen.add(period)
    return stay


def sweep(
    inventory: Inventory,
    facts: Facts,
    rules: Rules,
    now: datetime,
    marks: Mapping[str, datetime],
) -> list[Due]:
    """Return every step that is due, in an order that survives a crash; pure.

    Parameters
    ----------
    marks : mapping of str to datetime
        Key -> when it was first found that nobody names it.
    """
    chains = {r: inventory.chains[r] for r in facts.complete if r in inventory.chains}
    ended = {
        run: datetime.fromisoformat(chain.links[-1].time)
        for run, chain in chains.items()
        if chain.links
    }
    stay = kept(ended, rules, now)
    due: list[Due] = []
    for run in sorted(set(ended) - stay, key=lambda run: ended[run]):
        due += _run(chains[run], facts.of_run.get(run, ()), inventory)
    gone = {step.key for step in due}
    over = sorted(facts.over & set(inventory.held))
    due += [Due(Act.REMOVE, key, "its round is over") for key in over]
    return due + list(_nobodys(inventory, facts, rules, now, marks, gone))


def carry_out(
    stores: Sequence[tuple[str, Store]], due: Iterable[Due], now: datetime
) -> int:
    """Do what is due on every store, and return how many keys were removed.

    Raises
    ------
    StorageError
        A store does not answer; a repeat goes on.
    """
    removed = 0
    for step in due:
        for _, store in stores:
            if step.act == Act.MARK:
                _mark(store, step.key, now)
            elif step.act == Act.UNMARK:
                store.delete(mark_key(step.key))
            else:
                store.delete(step.key)
        removed += step.act == Act.REMOVE
    return removed


def mark_key(key: str) -> str:
    """Return where the mark of a key lies."""
    return f"mark/{key.replace('/', '.', 1)}"


def read_marks(
    stores: Sequence[tuple[str, Store]], held: Iterable[str]
) -> dict[str, datetime]:
    """Return when each marked key was marked; the latest of its copies.

    A mark that cannot be read counts as missing: the grace period starts again.
    """
    found: dict[str, datetime] = {}
    for mark in held:
        if family(mark) != Family.MARK:
            continue
        key = mark.removeprefix("mark/").replace(".", "/", 1)
        for _, store in stores:
            try:
                data = store.get(mark, _MARK_BYTES)
                time = datetime.fromisoformat(data.decode("ascii"))
            except (NotFound, ValueError):
                continue
            found[key] = max(time, found.get(key, time))
    return found


def require_all(inventory: Inventory) -> None:
    """Return only if every store answers: what is on one may be named by another.

    Raises
    ------
    StorageError
        Names those that do not.
    """
    if inventory.silent:
        names = [f"{inventory.stores[i][0]}: {w}" for i, w in inventory.silent.items()]
        raise StorageError(
            f"nothing is removed while a store does not answer: {'; '.join(names)}"
        )


def _mark(store: Store, key: str, now: datetime) -> None:
    try:
        store.put(mark_key(key), now.isoformat().encode())
    except AlreadyExists:
        return


def _run(chain: Chain, begins: Iterable[str], inventory: Inventory) -> Iterator[Due]:
    """Yield a run's keys: its newest manifest last, as it says that the run is due."""
    every = (*chain.orphans, *chain.links)
    keys = [*(m.object for m in every), *begins, *(manifest_key(m) for m in every)]
    for key in dict.fromkeys(keys):
        if key in inventory.held:
            yield Due(Act.REMOVE, key, f"run {chain.run} is complete, no rule keeps it")


def _nobodys(
    inventory: Inventory,
    facts: Facts,
    rules: Rules,
    now: datetime,
    marks: Mapping[str, datetime],
    gone: set[str],
) -> Iterator[Due]:
    named = {*inventory.sealing(), *facts.named, *facts.over, *gone}
    doubtful = bool(inventory.broken) or any(
        chain.missing and run not in facts.complete
        for run, chain in inventory.chains.items()
    )
    for key in sorted({*inventory.held, *marks}):
        if key not in marks and family(key) not in {Family.RELEASE, Family.UPDATE}:
            continue
        if key in named or key not in inventory.held:
            if key in marks:
                yield Due(Act.UNMARK, key, "it is named again, or gone")
        elif doubtful:
            continue  # a manifest that cannot be read may name it
        elif key not in marks:
            yield Due(Act.MARK, key, "no manifest and no journal names it")
        elif now - marks[key] >= rules.grace:
            yield Due(Act.REMOVE, key, f"nobody named it since {marks[key]:%F %H:%M}")
            yield Due(Act.UNMARK, key, "it is gone")
