"""The engines' servers run out of room in the middle of a run: nothing is half."""

import os
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure.clock import SystemClock
from fedsecure.drills.lease import Cast, kept_by, verdict
from fedsecure.drills.member import Part
from fedsecure.errors import (
    ConfigurationError,
    Conflict,
    OutcomeUnknown,
    StorageError,
)
from fedsecure.etcdgateway import text
from fedsecure.metadata import Engine, JournalEntry, Lease, Step
from tests.fakes import takeover
from tests.fakes.clock import FakeClock
from tests.fakes.fullservers import (
    NO_ROOM,
    FullServer,
    etcd_without_disk,
    etcd_without_quota,
    postgresql_without_data_room,
    postgresql_without_log_room,
)
from tests.fakes.fuses import Fuse
from tests.fakes.history import violations
from tests.fakes.metadata import State, engine
from tests.fakes.served import Served
from tests.fakes.servers import no_etcd, no_postgresql
from tests.fakes.smalldisk import no_small_disk

LACKS = no_postgresql() or no_etcd() or no_small_disk()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.skipif(bool(LACKS), reason=LACKS),
]
ENTRY = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
NEXT = replace(ENTRY, round=2, operation="op-2", detail=bytes(100_000))
TTL = 3.0
MAKERS = {
    "postgresql-data": postgresql_without_data_room,
    "postgresql-log": postgresql_without_log_room,
    "etcd-quota": etcd_without_quota,
    "etcd-disk": etcd_without_disk,
}


def _undisturbed() -> tuple[list[str], bytes]:
    """Return the durable steps of a run without faults, and its last model."""
    federation, fuse = Served(engine(State(FakeClock()))), Fuse("agg-1")
    federation.lead("agg-1", fuse)
    return fuse.names, federation.models()["site-1"]


NAMES, MODEL = _undisturbed()
STEPS = [n for n, s in enumerate(NAMES, 1) if s.startswith(("journal", "head"))]
FIRST_HEAD = NAMES.index("head") + 1


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, marks=[pytest.mark.chaos] if each == "etcd-disk" else [])
        for each in MAKERS
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(name: str) -> Iterator[FullServer]:
    with MAKERS[name]() as made:
        yield made


@pytest.fixture
def board(server: FullServer) -> Iterator[Engine]:
    place = uuid.uuid4().hex
    apart = {"schema": f"s{place}"} if server.plug == "postgresql" else {}
    apart = apart or {"prefix": f"/{place}/"}
    yield takeover.engine(server.plug, {**server.settings, **apart})
    server.heal()


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=[] if step == FIRST_HEAD else [pytest.mark.chaos])
        for step in STEPS
    ],
)
def test_a_run_stops_by_name_and_goes_on_once_there_is_room(
    name: str, server: FullServer, board: Engine, step: int
) -> None:
    federation = Served(board)

    def strike() -> None:
        server.exhaust(board.journal, federation.terms_led[-1])

    stopped: list[StorageError] = []
    try:
        federation.lead("agg-1", Fuse("agg-1", pause=(step, strike)))
    except StorageError as full:
        stopped.append(full)
    # The small row that ends a run may fit into a page where no other did.
    assert stopped or (name, step) == ("postgresql-data", STEPS[-1])
    assert all(server.says in str(full) for full in stopped)
    assert not any(isinstance(full, Conflict) for full in stopped)
    server.heal()
    federation.lead("agg-2")
    assert violations(federation) == []
    assert federation.models()["site-1"] == MODEL


SAYS = {
    "postgresql-data": (StorageError, f"could not append: .* {NO_ROOM}"),
    "postgresql-log": (OutcomeUnknown, f"could not append: .* {NO_ROOM}"),
    "etcd-quota": (OutcomeUnknown, "its quota .* is used up: compact and defragment"),
    "etcd-disk": (OutcomeUnknown, "could not append: .*; does that member run"),
}


def test_the_write_that_finds_no_room_says_what_is_full(
    name: str, server: FullServer, board: Engine
) -> None:
    lease = _led(board)
    said = server.exhaust(board.journal, lease.term)
    kind, text = SAYS[name]
    assert type(said) is kind
    assert re.search(text, str(said))
    assert "\n" not in str(said)


def test_a_write_that_found_no_room_is_repeated_and_there_once(
    server: FullServer, board: Engine
) -> None:
    lease = _led(board)
    board.journal.append(lease.term, [ENTRY])
    server.exhaust(board.journal, lease.term)
    with pytest.raises(StorageError):
        board.journal.append(lease.term, [NEXT])
    server.heal()
    for _ in range(2):
        board.journal.append(lease.term, [NEXT])
    assert list(board.journal.entries("run", 0)) == [ENTRY, NEXT]


@pytest.mark.parametrize("name", ["etcd-quota"], indirect=True)
def test_no_write_that_stands_was_said_to_be_refused_when_a_quota_ends_amid_many(
    server: FullServer, board: Engine
) -> None:
    lease = _led(board)
    said: dict[JournalEntry, str] = {}
    _crowd(board)

    def write(writer: int) -> None:
        for number in range(8):
            name, detail = f"{writer}-{number}", os.urandom(10_000)
            entry = replace(ENTRY, site=name, operation=name, detail=detail)
            try:
                board.journal.append(lease.term, [entry])
            except StorageError as full:
                said[entry] = type(full).__name__
            else:
                said[entry] = "ok"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    kept = list(board.journal.entries("run", 0))
    assert {said[entry] for entry in kept} <= {"ok", "OutcomeUnknown"}
    assert {said[entry] for entry in set(said) - set(kept)} == {"OutcomeUnknown"}
    server.heal()
    for entry in said:
        board.journal.append(lease.term, [entry])
    again = list(board.journal.entries("run", 0))
    assert again[: len(kept)] == kept
    assert sorted(e.site for e in again) == sorted(e.site for e in said)


@pytest.mark.parametrize("name", ["etcd-quota"], indirect=True)
def test_who_only_looks_sees_a_cluster_without_room(
    server: FullServer, board: Engine
) -> None:
    lease = _led(board)
    server.exhaust(board.journal, lease.term)
    prefix = board.leases._keys.prefix  # type: ignore[attr-defined]
    looks = takeover.engine(server.plug, {**server.settings, "prefix": prefix})
    assert looks.leases.read() == lease


@pytest.mark.parametrize("name", ["etcd-quota"], indirect=True)
def test_an_aggregator_that_starts_on_a_cluster_without_room_is_told_what_to_do(
    server: FullServer, board: Engine
) -> None:
    server.exhaust(board.journal, _led(board).term)
    with pytest.raises(ConfigurationError, match=r"`etcdctl compact`.*alarm disarm"):
        takeover.engine(server.plug, {**server.settings, "trial": True})


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["postgresql-log", "etcd-disk"], indirect=True)
def test_a_leader_stops_before_its_leases_end_when_its_server_dies_of_a_full_disk(
    server: FullServer, board: Engine
) -> None:
    place = _place(board)
    takeover.self_demotion(
        server.plug,
        {**server.settings, **place},
        lambda: _die(server, board),
        server.heal,
        TTL,
    )


@pytest.mark.chaos
def test_members_that_write_on_lose_nothing_and_lead_again_once_there_is_room(
    name: str, server: FullServer, board: Engine, tmp_path: Path
) -> None:
    clock = SystemClock()
    cast = Cast(tmp_path, clock, clock.now())
    settings = {**server.settings, **_place(board)}
    part = Part("agg-1", server.plug, settings, TTL)
    try:
        for each in ("agg-1", "agg-2"):
            cast.start(replace(part, name=each))
        cast.until("a first write", lambda: cast.newest_write() > 0)
        server.exhaust(board.journal, cast.newest_write())
        cast.until("an end of it", lambda: _last_event(cast, "over") > 0)
        time.sleep(TTL)
        before = cast.newest_write()
        if name != "postgresql-data":
            assert cast.leader() is None
        server.heal()
        cast.until("another write", lambda: cast.newest_write() > before)
    finally:
        cast.end()
    reads = [entry for entry in kept_by(cast, part) if "filler" not in entry[0]]
    assert sum(map(len, verdict(cast, reads).values())) == 0, verdict(cast, reads)


def _crowd(board: Engine) -> None:
    """Leave room for a part of the writes that follow."""
    keys = board.leases._keys  # type: ignore[attr-defined]
    for _ in range(10):
        keys.gateway.ask(
            "fill", "kv/put", {"key": text(b"filler"), "value": text(bytes(200_000))}
        )


def _last_event(cast: Cast, event: str) -> int:
    found = [line for each in cast.children for line in cast.lines(each)]
    return max((int(x["term"]) for x in found if x["event"] == event), default=0)


def _die(server: FullServer, board: Engine) -> None:
    server.exhaust(board.journal, 1)
    ends = time.monotonic() + 10
    while not server.ended():
        assert time.monotonic() < ends
        time.sleep(takeover.POLL)


def _place(board: Engine) -> dict[str, object]:
    """Return where the engine of a test lies in its server."""
    keys = getattr(board.leases, "_keys", None)
    if keys is not None:
        return {"prefix": keys.prefix}
    sessions = board.leases._sessions  # type: ignore[attr-defined]
    return {"schema": sessions.ask("look", "SELECT current_schema()")[0][0]}


def _led(board: Engine) -> Lease:
    lease = board.leases.acquire("agg-1", "a", 60.0)
    assert lease is not None
    return lease
