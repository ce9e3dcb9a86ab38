"""What the etcd engine promises beyond the contract: lost answers, pages, bounds."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fedsecure import registry
from fedsecure.errors import (
    ConfigurationError,
    Conflict,
    OutcomeUnknown,
    StaleTerm,
    StorageError,
)
from fedsecure.etcdgateway import Gateway, find_cluster
from fedsecure.keyspace import Keys, bring_up, digits
from fedsecure.metadata import Engine, Head, JournalEntry, Step
from tests.fakes.keeper import Keeper
from tests.fakes.member import Member, member

ENTRY = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
HEAD = Head("run", 1, 1, b"m" * 32, 1)
TXN = "/v3/kv/txn"
plug = registry.load("metadata", "etcd")


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def node(keeper: Keeper) -> Iterator[Member]:
    with member(keeper.answers()) as made:
        yield made


@pytest.fixture
def engine(node: Member) -> Engine:
    """Return an engine over the keeper, past the trial (tests/unit/test_etcdtrial)."""
    keys = Keys(Gateway(find_cluster({"endpoints": [node.endpoint]}, 0.5)), "/p/")
    bring_up(keys)
    return Engine(plug.EtcdLeases(keys), plug.EtcdJournal(keys))


def _bodies(node: Member, path: str) -> list[Any]:
    return [body for asked, body in node.asked if asked == path]


# --- settings -------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["fedsecure/", "/fedsecure", "x"])
def test_prefix_that_is_no_folder_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="must begin and end with /"):
        plug.create({"endpoints": ["http://127.0.0.1:1"], "prefix": prefix})


def test_engine_without_endpoints_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must name each member"):
        plug.create({})


def test_keys_of_another_format_are_refused(keeper: Keeper, engine: Engine) -> None:
    keeper.kept[b"/p/format"] = (b"2", 1, "0")
    with pytest.raises(ConfigurationError, match="of format 2, this version knows 1"):
        bring_up(engine.leases._keys)  # type: ignore[attr-defined]


def test_second_member_makes_no_second_set_of_keys(
    keeper: Keeper, engine: Engine
) -> None:
    engine.journal.append(7, [])
    bring_up(engine.leases._keys)  # type: ignore[attr-defined]
    assert keeper.kept[b"/p/term"][0] == digits(7)


def test_keys_that_are_there_are_asked_for_by_nothing_that_could_write(
    node: Member, engine: Engine
) -> None:
    node.asked.clear()
    bring_up(engine.leases._keys)  # type: ignore[attr-defined]
    bodies = _bodies(node, "/v3/kv/txn")
    assert bodies
    assert "request_put" not in str(bodies)


def test_who_only_looks_makes_no_trial(node: Member, engine: Engine) -> None:
    node.asked.clear()
    settings = {"endpoints": [node.endpoint], "prefix": "/p/", "trial": False}
    looking: Engine = plug.create(settings)
    assert looking.leases.read() is None
    assert {path for path, _ in node.asked} == {TXN}


@pytest.mark.parametrize("answer", [{}, {"ID": "x"}, {"ID": []}])
def test_grant_without_an_id_is_a_storage_error(
    engine: Engine, node: Member, answer: Any
) -> None:
    node.answers["/v3/lease/grant"] = (200, answer)
    with pytest.raises(StorageError):
        engine.leases.acquire("agg-1", "a", 3.0)


# --- answers that are lost ------------------------------------------------------------


def test_append_whose_answer_was_lost_is_written_once(
    keeper: Keeper, engine: Engine
) -> None:
    keeper.lose = [TXN]
    engine.journal.append(1, [ENTRY])
    assert list(engine.journal.entries("run", 0)) == [ENTRY]


def test_advance_whose_answer_was_lost_moves_once(
    keeper: Keeper, engine: Engine
) -> None:
    keeper.lose = [TXN]
    engine.journal.advance(1, None, HEAD)
    assert engine.journal.head("run") == HEAD
    assert len(list(engine.journal.entries("run", 0))) == 1


def test_acquisition_whose_answer_was_lost_leads(
    keeper: Keeper, engine: Engine, node: Member
) -> None:
    whole = node.answers[TXN]

    def losing(body: Any) -> Any:
        assert callable(whole)
        answer = whole(body)
        if any("request_put" in each for each in body["success"]):
            node.answers[TXN] = whole
            return None
        return answer

    node.answers[TXN] = losing
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    assert lease.term == 1
    assert engine.leases.renew(lease) == lease


def test_acquisition_without_an_answer_is_revoked(
    keeper: Keeper, engine: Engine, node: Member
) -> None:
    whole = node.answers[TXN]

    def silent(body: Any) -> Any:
        assert callable(whole)
        answer = whole(body)
        return None if any("request_put" in r for r in body["success"]) else answer

    node.answers[TXN] = silent
    with pytest.raises(OutcomeUnknown, match="could not acquire the lease"):
        engine.leases.acquire("agg-1", "a", 3.0)
    node.answers[TXN] = whole
    assert keeper.leases == {}
    assert engine.leases.read() is None


# --- lease ----------------------------------------------------------------------------


def test_ttl_is_rounded_up_to_whole_seconds(engine: Engine, node: Member) -> None:
    lease = engine.leases.acquire("agg-1", "a", 2.2)
    assert lease is not None
    assert lease.ttl == 2.2
    assert _bodies(node, "/v3/lease/grant") == [{"TTL": "3"}]


def test_loser_of_a_race_leaves_no_lease_behind(
    keeper: Keeper, engine: Engine, node: Member
) -> None:
    whole = node.answers["/v3/lease/grant"]

    def overtaken(body: Any) -> Any:
        node.answers["/v3/lease/grant"] = whole
        other = engine.leases.acquire("agg-2", "b", 3.0)
        assert other is not None
        assert callable(whole)
        return whole(body)

    node.answers["/v3/lease/grant"] = overtaken
    assert engine.leases.acquire("agg-1", "a", 3.0) is None
    assert len(keeper.leases) == 1


def test_acquisition_that_is_overtaken_by_a_term_takes_a_higher_one(
    engine: Engine, node: Member
) -> None:
    whole = node.answers["/v3/lease/grant"]

    def overtaken(body: Any) -> Any:
        engine.journal.append(9, [])
        assert callable(whole)
        return whole(body)

    node.answers["/v3/lease/grant"] = overtaken
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    assert lease.term == 10


def test_leader_under_the_same_term_is_not_replaced(
    keeper: Keeper, engine: Engine, node: Member
) -> None:
    # As after an operator set the term back.
    whole = node.answers["/v3/lease/grant"]
    held = b'{"address":"b","holder":"agg-2","term":0,"ttl":3}'

    def overtaken(body: Any) -> Any:
        keeper.kept[b"/p/leader"] = (held, 1, "7")
        assert callable(whole)
        return whole(body)

    node.answers["/v3/lease/grant"] = overtaken
    assert engine.leases.acquire("agg-1", "a", 3.0) is None
    assert keeper.kept[b"/p/leader"][0] == held


def test_lease_that_ended_is_lost(keeper: Keeper, engine: Engine) -> None:
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    keeper.end(next(iter(keeper.leases)))
    assert engine.leases.renew(lease) is None
    engine.leases.release(lease)


def test_lease_whose_key_is_gone_is_lost_although_it_was_prolonged(
    keeper: Keeper, engine: Engine
) -> None:
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    del keeper.kept[b"/p/leader"]
    assert engine.leases.renew(lease) is None


def test_renewal_reads_the_key_after_it_prolonged(engine: Engine, node: Member) -> None:
    lease = engine.leases.acquire("agg-1", "a", 3.0)
    assert lease is not None
    node.asked.clear()
    engine.leases.renew(lease)
    assert [path for path, _ in node.asked] == ["/v3/lease/keepalive", TXN]


def test_value_that_is_no_lease_is_a_storage_error(
    keeper: Keeper, engine: Engine
) -> None:
    for value in (b"", b"[]", b"{}", b'{"holder":1}'):
        keeper.kept[b"/p/leader"] = (value, 1, "0")
        with pytest.raises(StorageError, match="/p/leader is no lease"):
            engine.leases.read()


# --- journal --------------------------------------------------------------------------


def test_every_write_compares_and_keeps_the_term(engine: Engine, node: Member) -> None:
    node.asked.clear()
    engine.journal.append(4, [ENTRY])
    engine.journal.advance(4, None, replace(HEAD, round=2))
    fence = engine.journal._keys.fence(4)  # type: ignore[attr-defined]
    raised = engine.journal._keys.raised(4)  # type: ignore[attr-defined]
    bodies = _bodies(node, TXN)
    assert len(bodies) == 2
    assert all(body["compare"][0] == fence for body in bodies)
    assert all(raised in body["success"] for body in bodies)


def test_reads_are_linearizable(engine: Engine, node: Member) -> None:
    node.asked.clear()
    list(engine.journal.entries("run", 0))
    engine.journal.head("run")
    engine.leases.read()
    assert "serializable" not in str(node.asked)


def test_writes_without_the_term_key_are_refused(
    keeper: Keeper, engine: Engine
) -> None:
    del keeper.kept[b"/p/term"]
    with pytest.raises(StorageError, match="/p/term is gone"):
        engine.journal.append(1, [ENTRY])
    with pytest.raises(StorageError, match="/p/term is gone"):
        engine.journal.advance(1, None, HEAD)
    with pytest.raises(StorageError, match="/p/term is gone"):
        engine.leases.acquire("agg-1", "a", 3.0)
    assert list(engine.journal.entries("run", 0)) == []


def test_stale_repeat_is_stale_and_no_repeat(engine: Engine) -> None:
    engine.journal.append(1, [ENTRY])
    engine.journal.append(2, [])
    with pytest.raises(StaleTerm, match="term 1 may not write: term 2 leads"):
        engine.journal.append(1, [ENTRY])


def test_new_entries_beside_repeated_ones_are_written(engine: Engine) -> None:
    engine.journal.append(1, [ENTRY])
    new = replace(ENTRY, round=2, operation="op-2")
    engine.journal.append(1, [ENTRY, new])
    assert list(engine.journal.entries("run", 0)) == [ENTRY, new]


def test_operation_of_another_detail_is_a_conflict(engine: Engine) -> None:
    engine.journal.append(1, [ENTRY])
    with pytest.raises(Conflict):
        engine.journal.append(1, [replace(ENTRY, detail=b"[]")])


def test_pages_are_of_one_moment_and_in_the_order_written(
    engine: Engine, node: Member
) -> None:
    rounds = [(n * 37) % 150 for n in range(150)]
    entries = [replace(ENTRY, round=n, operation=f"op-{n}") for n in rounds]
    for start in range(0, 150, 50):
        engine.journal.append(1, entries[start : start + 50])
    node.asked.clear()
    assert list(engine.journal.entries("run", 0)) == entries
    revisions = [body["revision"] for body in _bodies(node, "/v3/kv/range")]
    assert revisions == ["0", "5", "5"]


def test_append_that_etcd_could_not_take_whole_is_refused_unasked(
    engine: Engine, node: Member
) -> None:
    many = [replace(ENTRY, site=f"s-{n}", operation=f"op-{n}") for n in range(61)]
    large = [
        replace(ENTRY, site=f"s-{n}", operation=f"op-{n}", detail=bytes(800_000))
        for n in range(2)
    ]
    node.asked.clear()
    for entries in (many, large):
        with pytest.raises(StorageError, match="at most 60 with 1400000 in one"):
            engine.journal.append(1, entries)
    assert node.asked == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"/p/journal/run/000000000001/open/", b"no header"),
        (b"/p/journal/run/000000000001/open/", b"{}\n{}"),
        (b"/p/journal/run/000000000001/dance/", b'{"index":0,"operation":"o"}\n'),
        (b"/p/journal/run/000000000001/x", b'{"index":0,"operation":"o"}\n'),
    ],
)
def test_value_that_is_no_entry_is_a_storage_error(
    keeper: Keeper, engine: Engine, key: bytes, value: bytes
) -> None:
    keeper.kept[key] = (value, 1, "0")
    with pytest.raises(StorageError, match="is no journal entry"):
        list(engine.journal.entries("run", 0))


def test_value_that_is_no_head_is_a_storage_error(
    keeper: Keeper, engine: Engine
) -> None:
    for value in (b"", b"[]", b"{}", b'{"manifest":"zz"}'):
        keeper.kept[b"/p/head/run"] = (value, 1, "0")
        with pytest.raises(StorageError, match="/p/head/run is no head"):
            engine.journal.head("run")


def test_names_with_slashes_stay_names(engine: Engine) -> None:
    odd = replace(ENTRY, run="a/b", site="x/../y é", operation="o/p")
    engine.journal.append(1, [odd])
    assert list(engine.journal.entries("a/b", 0)) == [odd]
    assert list(engine.journal.entries("a", 0)) == []
