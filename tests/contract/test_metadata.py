"""What every engine promises, asked of every plug of the socket and of the fake."""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.errors import Conflict, StaleTerm, StorageError
from fedsecure.metadata import Engine, Head, JournalEntry, Step
from tests.fakes import metadata as fake
from tests.fakes.clock import FakeClock
from tests.fakes.servers import (
    Etcd,
    Postgresql,
    etcd,
    no_etcd,
    no_postgresql,
    postgresql,
)

OPEN = JournalEntry("run", 1, Step.OPEN, "", "op-open", b'{"deadline":1}')
UPDATE = JournalEntry("run", 1, Step.UPDATE, "site-1", "op-update", b"{}")
HEAD = Head("run", 1, 1, b"m" * 32, 1)
NEXT = Head("run", 2, 2, b"n" * 32, 1)


NEEDS_A_SERVER = {"postgresql": no_postgresql, "etcd": no_etcd}
PLUGS = [
    pytest.param(name, marks=[pytest.mark.integration] * (name in NEEDS_A_SERVER))
    for name in registry.names("metadata")
]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Postgresql]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def etcd_cluster() -> Iterator[Etcd]:
    with etcd() as cluster:
        yield cluster


@pytest.fixture(params=[*PLUGS, "fake"])
def member(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Engine]:
    """Return a function that gives each caller its own view of one engine."""
    name = request.param
    if name == "fake":
        state = fake.State(FakeClock())
        return lambda: fake.engine(state)
    reason = NEEDS_A_SERVER[name]() if name in NEEDS_A_SERVER else ""
    if reason:
        pytest.skip(reason)
    settings: dict[str, object] = {"path": tmp_path / "lease"}
    if name == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        schema = f"s{uuid.uuid4().hex}"
        settings = {"url": server.url, "schema": schema, "timeout": 10}
    if name == "etcd":
        cluster = request.getfixturevalue("etcd_cluster")
        prefix = f"/{uuid.uuid4().hex}/"
        settings = {"endpoints": cluster.endpoints, "prefix": prefix, "timeout": 10}
    create = registry.load("metadata", name).create

    def made() -> Engine:
        engine: Engine = create(settings)
        return engine

    return made


# --- lease ----------------------------------------------------------------------------


def test_free_lease_is_none(member: Callable[[], Engine]) -> None:
    assert member().leases.read() is None


def test_first_term_is_above_zero(member: Callable[[], Engine]) -> None:
    lease = member().leases.acquire("agg-1", "host:1", 3.0)
    assert lease is not None
    assert (lease.holder, lease.address, lease.ttl) == ("agg-1", "host:1", 3.0)
    assert lease.term >= 1


def test_held_lease_is_not_acquired_by_another(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    assert one.leases.acquire("agg-1", "a", 3.0) is not None
    assert two.leases.acquire("agg-2", "b", 3.0) is None


def test_held_lease_is_not_acquired_again_by_its_holder(
    member: Callable[[], Engine],
) -> None:
    one = member()
    lease = one.leases.acquire("agg-1", "a", 3.0)
    assert one.leases.acquire("agg-1", "a", 3.0) is None
    assert one.leases.read() == lease


def test_everybody_reads_who_holds_it(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    lease = one.leases.acquire("agg-1", "a\tb\n", 3.0)
    assert one.leases.read() == lease
    assert two.leases.read() == lease


def test_holder_renews(member: Callable[[], Engine]) -> None:
    one = member()
    lease = one.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    assert one.leases.renew(lease) == lease


def test_released_lease_is_free_at_once(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    lease = one.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    one.leases.release(lease)
    assert two.leases.read() is None
    assert two.leases.acquire("agg-2", "b", 3.0) is not None


def test_release_is_idempotent(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    lease = one.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    one.leases.release(lease)
    assert two.leases.acquire("agg-2", "b", 3.0) is not None
    one.leases.release(lease)
    assert two.leases.read() is not None


def test_released_lease_is_not_renewed(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    lease = one.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    one.leases.release(lease)
    assert one.leases.renew(lease) is None
    assert two.leases.acquire("agg-2", "b", 3.0) is not None
    assert one.leases.renew(lease) is None


def test_lease_of_an_earlier_term_neither_renews_nor_releases(
    member: Callable[[], Engine],
) -> None:
    one = member()
    old = one.leases.acquire("agg-1", "a", 3.0)
    assert old is not None
    one.leases.release(old)
    new = one.leases.acquire("agg-1", "a", 3.0)
    assert new is not None
    assert one.leases.renew(old) is None
    one.leases.release(old)
    assert one.leases.renew(new) == new


def test_terms_rise_with_every_leadership(member: Callable[[], Engine]) -> None:
    terms = []
    for turn in range(6):
        one = member()
        lease = one.leases.acquire(f"agg-{turn % 2}", "a", 3.0)
        assert lease is not None
        terms.append(lease.term)
        one.leases.release(lease)
    assert terms == sorted(set(terms))


def test_one_of_many_threads_leads(member: Callable[[], Engine]) -> None:
    engines = [member() for _ in range(8)]
    start = threading.Barrier(len(engines))
    won: list[int] = []

    def campaign(number: int) -> None:
        start.wait()
        if engines[number].leases.acquire(f"agg-{number}", "a", 3.0) is not None:
            won.append(number)

    threads = [threading.Thread(target=campaign, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_terms_of_threads_that_lead_in_turn_rise_and_are_distinct(
    member: Callable[[], Engine],
) -> None:
    engines = [member() for _ in range(8)]
    start = threading.Barrier(len(engines))
    terms: list[int] = []

    def campaign(number: int) -> None:
        start.wait()
        while True:
            lease = engines[number].leases.acquire(f"agg-{number}", "a", 30.0)
            if lease is not None:
                terms.append(lease.term)  # nobody else leads now
                engines[number].leases.release(lease)
                return

    threads = [threading.Thread(target=campaign, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(terms) == 8
    assert terms == sorted(set(terms))


# --- term -----------------------------------------------------------------------------


def test_lower_term_is_refused_after_an_acquisition(
    member: Callable[[], Engine],
) -> None:
    one, two = member(), member()
    old = one.leases.acquire("agg-1", "a", 3.0)
    assert old is not None
    one.leases.release(old)
    assert two.leases.acquire("agg-2", "b", 3.0) is not None
    with pytest.raises(StaleTerm):
        one.journal.append(old.term, [OPEN])
    with pytest.raises(StaleTerm):
        one.journal.advance(old.term, None, HEAD)
    assert list(one.journal.entries("run", 0)) == []
    assert one.journal.head("run") is None


def test_lower_term_is_refused_after_a_write(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    two.journal.append(7, [OPEN])
    with pytest.raises(StaleTerm):
        one.journal.append(6, [UPDATE])


def test_refused_write_of_an_old_term_is_refused_as_a_repeat_too(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [OPEN])
    one.journal.append(2, [])
    with pytest.raises(StaleTerm):
        one.journal.append(1, [OPEN])


def test_next_term_is_above_every_term_written(member: Callable[[], Engine]) -> None:
    # The floor: a restored lease board cannot hand out a term that led before.
    one = member()
    one.journal.append(41, [OPEN])
    lease = one.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    assert lease.term == 42


# --- journal --------------------------------------------------------------------------


def test_everybody_reads_entries_in_the_order_written(
    member: Callable[[], Engine],
) -> None:
    one, two = member(), member()
    one.journal.append(1, [OPEN, UPDATE])
    later = JournalEntry("run", 1, Step.UPDATE, "site-0", "op-2", b"\x00\xff")
    one.journal.append(1, [later])
    assert list(two.journal.entries("run", 0)) == [OPEN, UPDATE, later]


def test_entries_of_other_runs_and_earlier_rounds_are_left_out(
    member: Callable[[], Engine],
) -> None:
    one = member()
    second = replace(OPEN, round=2, operation="op-2")
    other = replace(OPEN, run="other", operation="op-3")
    one.journal.append(1, [OPEN, second, other])
    assert list(one.journal.entries("run", 2)) == [second]


def test_second_append_of_one_operation_is_no_second_entry(
    member: Callable[[], Engine],
) -> None:
    one, two = member(), member()
    one.journal.append(1, [UPDATE])
    two.journal.append(2, [UPDATE])
    assert list(one.journal.entries("run", 0)) == [UPDATE]


def test_second_update_of_one_site_is_a_conflict(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [UPDATE])
    with pytest.raises(Conflict):
        one.journal.append(1, [replace(UPDATE, operation="op-2")])
    assert list(one.journal.entries("run", 0)) == [UPDATE]


def test_operation_that_was_something_else_is_a_conflict(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [UPDATE])
    with pytest.raises(Conflict):
        one.journal.append(1, [replace(UPDATE, site="site-2")])


def test_all_entries_are_written_or_none(member: Callable[[], Engine]) -> None:
    one = member()
    one.journal.append(1, [UPDATE])
    twice = replace(UPDATE, operation="op-2")
    with pytest.raises(Conflict):
        one.journal.append(1, [OPEN, twice])
    assert list(one.journal.entries("run", 0)) == [UPDATE]
    one.journal.append(1, [OPEN])


@pytest.mark.parametrize("end", [Step.SKIP, Step.PUBLISH])
def test_the_end_of_a_round_takes_its_key_away(
    member: Callable[[], Engine], end: Step
) -> None:
    journal = member().journal
    key = replace(OPEN, step=Step.KEY, operation="op-key")
    other = replace(key, round=2, operation="op-other")
    ended = replace(OPEN, step=end, operation="op-end")
    journal.append(1, [OPEN, key, other])
    journal.append(1, [ended])
    assert list(member().journal.entries("run", 0)) == [OPEN, other, ended]


def test_a_repeated_end_of_a_round_is_no_second_end(
    member: Callable[[], Engine],
) -> None:
    journal = member().journal
    ended = replace(OPEN, step=Step.SKIP, operation="op-end")
    journal.append(1, [OPEN, replace(OPEN, step=Step.KEY, operation="op-key")])
    journal.append(1, [ended])
    journal.append(1, [ended])
    assert list(journal.entries("run", 0)) == [OPEN, ended]


def test_an_old_term_takes_no_key_away(member: Callable[[], Engine]) -> None:
    journal = member().journal
    key = replace(OPEN, step=Step.KEY, operation="op-key")
    journal.append(2, [OPEN, key])
    with pytest.raises(StaleTerm):
        journal.append(1, [replace(OPEN, step=Step.SKIP, operation="op-end")])
    assert list(journal.entries("run", 0)) == [OPEN, key]


def test_sites_are_kept_apart(member: Callable[[], Engine]) -> None:
    one = member()
    entries = [replace(UPDATE, site=f"s-{n}", operation=f"op-{n}") for n in range(5)]
    one.journal.append(1, entries)
    assert list(one.journal.entries("run", 1)) == entries


def test_threads_write_every_entry_once(member: Callable[[], Engine]) -> None:
    one = member()

    def work(site: int) -> None:
        for number in range(1, 6):
            entry = replace(UPDATE, round=number, site=f"s-{site}")
            one.journal.append(1, [replace(entry, operation=f"op-{site}-{number}")])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(one.journal.entries("run", 0))) == 20


def test_entry_named_twice_in_one_append_is_one_entry(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [UPDATE, OPEN, UPDATE])
    assert list(one.journal.entries("run", 0)) == [UPDATE, OPEN]


@pytest.mark.parametrize(
    "other", [replace(UPDATE, operation="op-2"), replace(UPDATE, site="site-2")]
)
def test_append_that_contradicts_itself_is_a_conflict(
    member: Callable[[], Engine], other: JournalEntry
) -> None:
    one = member()
    with pytest.raises(Conflict):
        one.journal.append(1, [OPEN, UPDATE, other])
    assert list(one.journal.entries("run", 0)) == []


def test_new_entries_beside_a_repeated_one_are_written(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [UPDATE])
    one.journal.append(1, [UPDATE, OPEN])
    assert list(one.journal.entries("run", 0)) == [UPDATE, OPEN]


def test_operation_with_another_detail_is_a_conflict(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [UPDATE])
    with pytest.raises(Conflict):
        one.journal.append(1, [replace(UPDATE, detail=b"[]")])
    assert list(one.journal.entries("run", 0)) == [UPDATE]


def test_detail_of_one_mebibyte_is_kept_and_no_larger_one(
    member: Callable[[], Engine],
) -> None:
    one = member()
    largest = replace(UPDATE, detail=bytes(range(256)) * 4096)
    one.journal.append(1, [largest])
    with pytest.raises(StorageError, match="at most 1048576"):
        one.journal.append(1, [replace(OPEN, detail=largest.detail + b"x")])
    assert list(one.journal.entries("run", 0)) == [largest]


def test_long_journal_is_read_in_the_order_written(
    member: Callable[[], Engine],
) -> None:
    one = member()
    entries = [
        replace(UPDATE, round=(n * 37) % 150, operation=f"op-{n}") for n in range(150)
    ]
    for start in range(0, 150, 50):
        one.journal.append(1, entries[start : start + 50])
    assert list(one.journal.entries("run", 0)) == entries
    late = [entry for entry in entries if entry.round >= 100]
    assert list(one.journal.entries("run", 100)) == late


def test_threads_that_write_one_step_write_it_once(
    member: Callable[[], Engine],
) -> None:
    engines = [member() for _ in range(6)]
    start = threading.Barrier(len(engines))
    done: list[str] = []

    def work(number: int) -> None:
        start.wait()
        try:
            engines[number].journal.append(
                1, [replace(UPDATE, operation=f"op-{number % 2}")]
            )
            done.append("written")
        except Conflict:
            done.append("conflict")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["conflict"] * 3 + ["written"] * 3
    assert len(list(engines[0].journal.entries("run", 0))) == 1


# --- head -----------------------------------------------------------------------------


def test_run_without_a_release_has_no_head(member: Callable[[], Engine]) -> None:
    assert member().journal.head("run") is None


def test_head_moves_with_its_release_entry(member: Callable[[], Engine]) -> None:
    one, two = member(), member()
    one.journal.advance(1, None, HEAD)
    assert two.journal.head("run") == HEAD
    (entry,) = two.journal.entries("run", 0)
    assert (entry.step, entry.round) == (Step.RELEASE, 1)
    assert entry.detail == b'{"manifest":"' + b"6d" * 32 + b'","sequence":1}'


def test_head_that_is_not_the_expected_one_is_a_conflict(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.advance(1, None, HEAD)
    for expected in (None, NEXT):
        with pytest.raises(Conflict):
            one.journal.advance(1, expected, NEXT)
    assert one.journal.head("run") == HEAD
    assert len(list(one.journal.entries("run", 0))) == 1


def test_repeated_advance_is_no_second_release(member: Callable[[], Engine]) -> None:
    one = member()
    one.journal.advance(1, None, HEAD)
    one.journal.advance(1, None, HEAD)
    assert one.journal.head("run") == HEAD
    assert len(list(one.journal.entries("run", 0))) == 1


def test_repeated_release_under_a_higher_term_raises_it(
    member: Callable[[], Engine],
) -> None:
    one, two = member(), member()
    one.journal.advance(1, None, HEAD)
    two.journal.advance(2, None, HEAD)
    with pytest.raises(StaleTerm):
        one.journal.append(1, [])


def test_second_release_of_one_round_is_a_conflict(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.advance(1, None, HEAD)
    second = replace(HEAD, sequence=2, manifest=b"x" * 32)
    with pytest.raises(Conflict):
        one.journal.advance(1, HEAD, second)
    assert one.journal.head("run") == HEAD


CLOSE = JournalEntry("run", 1, Step.CLOSE, "", "op-close", b'{"root":"aa"}')
SKIP = JournalEntry("run", 1, Step.SKIP, "", "op-skip", b"{}")


@pytest.mark.parametrize("closed", [b"", CLOSE.detail])
def test_head_of_a_round_that_is_open_does_not_move(
    member: Callable[[], Engine], closed: bytes
) -> None:
    one = member()
    one.journal.append(1, [OPEN, UPDATE])
    with pytest.raises(Conflict, match="not closed over the set"):
        one.journal.advance(1, None, HEAD, closed)
    assert one.journal.head("run") is None
    assert list(one.journal.entries("run", 0)) == [OPEN, UPDATE]


@pytest.mark.parametrize("closed", [b"", b'{"root":"ab"}', CLOSE.detail + b" "])
def test_head_does_not_move_over_another_set_than_the_closed_one(
    member: Callable[[], Engine], closed: bytes
) -> None:
    one = member()
    one.journal.append(1, [OPEN, CLOSE])
    with pytest.raises(Conflict, match="not closed over the set"):
        one.journal.advance(1, None, HEAD, closed)
    assert one.journal.head("run") is None


def test_head_moves_over_the_closed_set_whoever_closed_it(
    member: Callable[[], Engine],
) -> None:
    one, two = member(), member()
    one.journal.append(1, [OPEN, UPDATE])
    one.journal.append(1, [CLOSE])
    two.journal.advance(2, None, HEAD, CLOSE.detail)
    assert one.journal.head("run") == HEAD


def test_second_head_moves_over_its_own_rounds_set(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [OPEN, CLOSE])
    one.journal.advance(1, None, HEAD, CLOSE.detail)
    other = replace(CLOSE, round=2, operation="op-2", detail=b'{"root":"bb"}')
    one.journal.append(1, [replace(OPEN, round=2, operation="op-3"), other])
    with pytest.raises(Conflict, match="not closed over the set"):
        one.journal.advance(1, HEAD, NEXT, CLOSE.detail)
    one.journal.advance(1, HEAD, NEXT, other.detail)
    assert one.journal.head("run") == NEXT


def test_head_of_a_skipped_round_does_not_move(member: Callable[[], Engine]) -> None:
    one = member()
    one.journal.append(1, [OPEN, CLOSE, SKIP])
    with pytest.raises(Conflict, match="skipped"):
        one.journal.advance(1, None, HEAD, CLOSE.detail)
    assert one.journal.head("run") is None


def test_stale_term_is_said_before_a_set_that_is_not_closed(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(2, [OPEN])
    with pytest.raises(StaleTerm):
        one.journal.advance(1, None, HEAD, CLOSE.detail)


def test_repeated_advance_is_done_whatever_it_says_was_closed(
    member: Callable[[], Engine],
) -> None:
    one = member()
    one.journal.append(1, [OPEN, CLOSE])
    one.journal.advance(1, None, HEAD, CLOSE.detail)
    one.journal.advance(1, None, HEAD, b"[]")
    assert one.journal.head("run") == HEAD
    assert len(list(one.journal.entries("run", 0))) == 3


def test_runs_have_their_own_heads(member: Callable[[], Engine]) -> None:
    one = member()
    one.journal.advance(1, None, HEAD)
    other = replace(HEAD, run="other")
    one.journal.advance(1, None, other)
    assert one.journal.head("run") == HEAD
    assert one.journal.head("other") == other


def test_one_of_many_threads_advances(member: Callable[[], Engine]) -> None:
    engines = [member() for _ in range(6)]
    start = threading.Barrier(len(engines))
    done: list[str] = []

    def work(number: int) -> None:
        start.wait()
        try:
            engines[number].journal.advance(
                1, None, replace(HEAD, sequence=number, manifest=bytes([number]) * 32)
            )
            done.append("moved")
        except Conflict:
            done.append("conflict")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["conflict"] * 5 + ["moved"]
