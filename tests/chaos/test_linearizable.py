"""Head and lease are one register each, whoever asks at once, whatever answer is lost.

Threads ask an engine at the same time; what each was told, and when, must fit one
order (`tests/fakes/linearizable.py`). Some answers are lost: outcomes unknown. Whoever
looks at the embedded lease takes its lock for a moment, so there "somebody else holds
it" may mean a look, and is left out; leaderships and "it is free" are not.
"""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.errors import Conflict
from fedsecure.metadata import Engine, Head, Lease
from tests.fakes import metadata as fake
from tests.fakes.clock import FakeClock
from tests.fakes.linearizable import Operation, Outcome, is_linearizable
from tests.fakes.servers import (
    Etcd,
    Postgresql,
    etcd,
    no_etcd,
    no_postgresql,
    postgresql,
)

THREADS = 4
Make = Callable[[], Engine]
Work = Callable[[Engine, int, random.Random], Operation]
held_by: dict[int, Lease] = {}
"""By the view of an engine that leads."""


def told(make: Make, work: Work, threads: int, each: int, seed: int) -> list[Operation]:
    """Return what so many threads were told, each through a view of its own."""
    engines, history = [make() for _ in range(threads)], list[Operation]()
    start = threading.Barrier(threads)

    def ask(number: int) -> None:
        dice = random.Random(f"{seed}-{number}")  # noqa: S311 - moments, no secrets
        start.wait()
        for _ in range(each):
            history.append(work(engines[number], number, dice))

    running = [threading.Thread(target=ask, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return history


def meant(make: Make, work: Work, history: list[Operation]) -> list[Operation]:
    """Return what says something of the register; see above."""
    embedded = "embedded" in type(make().leases).__module__
    if work is not about_the_lease or not embedded:
        return history
    return [
        told_
        for told_ in history
        if told_.outcome == Outcome.DONE and (told_.change or told_.found is None)
    ]


def about_heads(engine: Engine, number: int, dice: random.Random) -> Operation:
    """Read the head, or move it from what was read; one answer in ten is lost."""
    sent, journal = time.monotonic(), engine.journal
    found = journal.head("run")
    if dice.random() < 0.5:
        return Operation(sent, time.monotonic(), Outcome.DONE, found)
    round_number = 1 if found is None else found.round + 1
    new = Head("run", round_number, 100 * round_number + number, b"m" * 32, 1)
    sent, outcome = time.monotonic(), Outcome.DONE
    try:
        journal.advance(1, found, new)
    except Conflict:
        outcome = Outcome.REFUSED
    if dice.random() < 0.1:
        outcome = Outcome.UNKNOWN
    return Operation(sent, time.monotonic(), outcome, change=(found, new))


def about_the_lease(engine: Engine, number: int, dice: random.Random) -> Operation:
    """Take the lease, give it up at once, or look whether somebody has it."""
    board, sent = engine.leases, time.monotonic()
    if dice.random() < 0.4:
        lease = board.read()
        found = None if lease is None else lease.holder
        return Operation(sent, time.monotonic(), Outcome.DONE, found)
    held = held_by.get(id(engine))
    name = f"agg-{number}-{uuid.uuid4().hex[:4]}"
    if held is None:
        lease = board.acquire(name, "here", 60.0)
        outcome = Outcome.REFUSED if lease is None else Outcome.DONE
        if lease is not None:
            held_by[id(engine)] = lease
        return Operation(sent, time.monotonic(), outcome, change=(None, name))
    del held_by[id(engine)]
    board.release(held)
    change = (held.holder, None)
    return Operation(sent, time.monotonic(), Outcome.DONE, change=change)


@pytest.fixture(scope="module")
def postgresql_server() -> Iterator[Postgresql]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def etcd_cluster() -> Iterator[Etcd]:
    with etcd(1) as cluster:
        yield cluster


SERVERS = {"postgresql": no_postgresql, "etcd": no_etcd}


@pytest.fixture(
    params=[
        "fake",
        "embedded",
        *(pytest.param(name, marks=pytest.mark.integration) for name in SERVERS),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return what gives each caller a view of its own of one engine."""
    name, settings = request.param, dict[str, object]()
    if name == "fake":
        state = fake.State(FakeClock())
        return lambda: fake.engine(state)
    if name in SERVERS and SERVERS[name]():
        pytest.skip(SERVERS[name]())
    if name == "embedded":
        settings = {"path": tmp_path / "lease"}
    if name == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        schema = f"s{uuid.uuid4().hex}"
        settings = {"url": server.url, "schema": schema, "timeout": 10}
    if name == "etcd":
        cluster = request.getfixturevalue("etcd_cluster")
        prefix = f"/{uuid.uuid4().hex}/"
        settings = {"endpoints": cluster.endpoints, "prefix": prefix, "timeout": 10}
    create = registry.load("metadata", name).create
    return lambda: create(settings)


@pytest.mark.parametrize("work", [about_heads, about_the_lease])
def test_what_many_are_told_at_once_fits_one_order(make: Make, work: Work) -> None:
    history = told(make, work, THREADS, 20, seed=1)
    assert len(history) == THREADS * 20
    assert is_linearizable(meant(make, work, history))


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("work", [about_heads, about_the_lease])
def test_what_many_are_told_for_long_fits_one_order(make: Make, work: Work) -> None:
    assert is_linearizable(meant(make, work, told(make, work, 6, 150, seed=2)))


# --- the checker can say no -----------------------------------------------------------


def wrote(sent: float, answered: float, before: object, after: object) -> Operation:
    return Operation(sent, answered, Outcome.DONE, change=(before, after))


def read(sent: float, answered: float, found: object) -> Operation:
    return Operation(sent, answered, Outcome.DONE, found)


def test_read_of_what_was_overwritten_before_is_noticed() -> None:
    history = [wrote(0, 1, None, "a"), wrote(2, 3, "a", "b"), read(4, 5, "a")]
    assert not is_linearizable(history)
    assert is_linearizable([*history[:2], read(2.5, 5, "a")])


def test_two_winners_of_one_change_are_noticed() -> None:
    assert not is_linearizable([wrote(0, 9, None, "a"), wrote(0, 9, None, "b")])


def test_change_that_is_refused_without_a_reason_is_noticed() -> None:
    refused = Operation(2, 3, Outcome.REFUSED, change=("a", "b"))
    assert not is_linearizable([wrote(0, 1, None, "a"), refused])
    assert is_linearizable([wrote(0, 2.5, None, "a"), refused])


@pytest.mark.parametrize("found", ["a", None])
def test_unknown_outcome_explains_either_and_no_change_of_mind(found: object) -> None:
    unknown = Operation(0, 1, Outcome.UNKNOWN, change=(None, "a"))
    assert is_linearizable([unknown, read(5, 6, found)])
    assert not is_linearizable([unknown, read(5, 6, "a"), read(7, 8, None)])


def test_engine_that_forgets_a_head_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = fake.State(FakeClock())
    head = fake.FakeJournal.head

    def stale(self: fake.FakeJournal, run: str) -> Head | None:
        found = head(self, run)
        return None if found is None or found.round % 5 == 0 else found

    monkeypatch.setattr(fake.FakeJournal, "head", stale)
    history = told(lambda: fake.engine(state), about_heads, THREADS, 20, seed=1)
    assert not is_linearizable(history)
