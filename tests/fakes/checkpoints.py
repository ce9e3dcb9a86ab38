"""What a finished federation in memory left in its stores, and looks at it."""

from collections.abc import Iterator

from fedsecure.access.roster import Role
from fedsecure.checkpoint.copies import BAD, State
from fedsecure.checkpoint.inventory import Inventory, take
from fedsecure.checkpoint.judge import Judge
from fedsecure.metadata import Engine
from fedsecure.stores import Store
from tests.fakes.federation import Federation
from tests.fakes.metadata import State as EngineState
from tests.fakes.metadata import engine


def finished(rounds: int = 2) -> Federation:
    """Return a federation whose run is complete."""
    federation = Federation(rounds=rounds, private=False)
    federation.lead()
    return federation


def judge(federation: Federation, name: str = "agg-1") -> Judge:
    """Return what an aggregator tells good copies by."""
    members = federation.roster.members.values()
    return Judge(
        name,
        federation.box(name),
        {m.name: m.signing for m in members if m.role == Role.AGGREGATOR},
        {m.name: m.signing for m in members if m.role == Role.SITE},
    )


def stores(federation: Federation) -> list[tuple[str, Store]]:
    """Return the stores by name."""
    return [(f"store-{i}", store) for i, store in enumerate(federation.stores)]


def inventory(federation: Federation) -> Inventory:
    """Return what the stores hold, told by the federation's engine."""
    heads = engine(federation.state).journal.head
    return take(stores(federation), judge(federation), heads)


def bad(found: Inventory) -> Iterator[tuple[int, str, State]]:
    """Yield every copy that is not good."""
    for looked in found.examine():
        for copy in looked.copies:
            if copy.state in BAD:
                yield copy.store, looked.key, copy.state


def keys(federation: Federation, prefix: str) -> list[str]:
    """Return the keys any store has."""
    return sorted(
        {k for s in federation.stores for k in s.objects if k.startswith(prefix)}
    )


def new_engine(federation: Federation) -> Engine:
    """Lose the engine, and return the empty one in its place."""
    federation.state = EngineState(federation.clock)
    return engine(federation.state)
