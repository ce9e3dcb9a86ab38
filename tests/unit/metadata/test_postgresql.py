"""What the PostgreSQL engine does with each answer; the server is a list of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fedsecure import registry, tables
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    OutcomeUnknown,
    StaleTerm,
    StorageError,
)
from fedsecure.metadata import Engine, Head, JournalEntry, Lease, Step, release_entry
from fedsecure.postgres import Server, Sessions, Unfit

ENTRY = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
HEAD = Head("run", 1, 1, b"m" * 32, 1)
LEASE = Lease("agg-1", "a", 4, 3.0)
plug = registry.load("metadata", "postgresql")


class Scripted(Sessions):
    """Answers from a list, in order; exceptions are raised."""

    def __init__(self, *answers: Any) -> None:
        server = Server("", "postgresql at here", 1.0, insecure_plain=False)
        super().__init__(server)
        self.answers = list(answers)
        self.asked: list[tuple[str, Any, bool]] = []

    def ask(
        self,
        what: str,
        statement: str,
        given: Mapping[str, object] | None = None,
        *,
        writes: bool = False,
    ) -> Sequence[Any]:
        self.asked.append((statement, dict(given or {}), writes))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: Sequence[Any] = answer
        return found


def _engine(*answers: Any) -> tuple[Engine, Scripted]:
    sessions = Scripted(*answers)
    leases, journal = plug.PostgresqlLeases(sessions), plug.PostgresqlJournal(sessions)
    return Engine(leases, journal), sessions


def test_engine_without_a_url_asks_libpq_for_a_local_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", "x")
    with pytest.raises(ConfigurationError, match="PGPASSWORD"):
        plug.create({})


def test_server_that_is_unfit_at_start_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unfit(*_: object) -> None:
        raise Unfit("postgresql at here is a hot standby")

    monkeypatch.setattr(tables, "bring_up", unfit)
    with pytest.raises(ConfigurationError, match="is a hot standby"):
        plug.create({"url": "postgresql://fed@127.0.0.1/db"})


@pytest.mark.parametrize("name", ["timeout", "max_skew"])
def test_bound_out_of_range_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "bring_up", lambda *_: None)
    monkeypatch.setattr(Sessions, "ask", lambda *_, **__: [(1,)])
    with pytest.raises(ConfigurationError, match=f"{name}=0"):
        plug.create({"url": "postgresql://fed@127.0.0.1/db", name: 0})


def test_who_only_looks_makes_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tables, "bring_up", lambda *_: None)
    monkeypatch.setattr(Sessions, "ask", lambda _, what, *__, **___: asked.append(what))
    plug.create({"url": "postgresql://fed@127.0.0.1/db", "trial": False})
    assert asked == []


def test_lease_that_somebody_holds_is_none() -> None:
    engine, _ = _engine([])
    assert engine.leases.acquire("agg-1", "a", 3.0) is None


def test_lease_that_could_not_be_asked_for_is_no_lease() -> None:
    engine, sessions = _engine(OutcomeUnknown("no answer"))
    with pytest.raises(OutcomeUnknown):
        engine.leases.acquire("agg-1", "a", 3.0)
    assert sessions.asked[0][2]


def test_renewal_compares_holder_and_term() -> None:
    engine, sessions = _engine([(4,)], [])
    assert engine.leases.renew(LEASE) == LEASE
    assert engine.leases.renew(LEASE) is None
    assert sessions.asked[0][1] == {"term": 4, "holder": "agg-1"}


@pytest.mark.parametrize(
    "statement", [tables.READ, tables.ACQUIRE, tables.RENEW, tables.RELEASE]
)
def test_only_the_servers_clock_judges_a_lease(statement: str) -> None:
    assert "ends" in statement
    assert "now()" not in statement  # that is the start of the transaction
    if statement != tables.RELEASE:
        assert "clock_timestamp()" in statement


def test_append_that_met_an_earlier_try_is_asked_once_more() -> None:
    engine, sessions = _engine(AlreadyExists("operation"), [(1,)])
    engine.journal.append(4, [ENTRY])
    assert len(sessions.asked) == 2
    assert sessions.asked[0] == sessions.asked[1]


def test_append_that_meets_another_write_twice_is_a_conflict() -> None:
    engine, _ = _engine(AlreadyExists("place"), AlreadyExists("place"))
    with pytest.raises(Conflict, match="written before by another operation"):
        engine.journal.append(4, [ENTRY])


def test_append_of_a_lower_term_is_stale() -> None:
    engine, _ = _engine([(0,)], [(9,)])
    with pytest.raises(StaleTerm, match="term 4 may not write: term 9 leads"):
        engine.journal.append(4, [ENTRY])


def test_append_without_the_lease_row_is_stale() -> None:
    engine, _ = _engine([(0,)], [])
    with pytest.raises(StaleTerm, match="the lease row is gone"):
        engine.journal.append(4, [ENTRY])


def test_entries_of_one_append_travel_as_columns() -> None:
    engine, sessions = _engine([(1,)])
    second = replace(ENTRY, round=2, operation="op-2", detail=b"[]")
    engine.journal.append(4, [ENTRY, second])
    given = sessions.asked[0][1]
    assert (given["round"], given["operation"]) == ([1, 2], ["op", "op-2"])
    assert given["detail"] == [b"{}", b"[]"]


def test_journal_is_read_page_by_page() -> None:
    row = ("run", 1, "open", "", "op", b"{}")
    first = [(n, *row) for n in range(64)]
    engine, sessions = _engine(first, [(64, *row)])
    assert len(list(engine.journal.entries("run", 0))) == 65
    assert [given["after"] for _, given, _ in sessions.asked] == [0, 63]


def test_advance_that_moved_asks_no_more() -> None:
    engine, sessions = _engine([(1, 1)])
    engine.journal.advance(4, None, HEAD)
    (statement, given, writes) = sessions.asked[0]
    assert (statement, writes) == (tables.FIRST_HEAD, True)
    assert given["operation"] == release_entry(HEAD).operation


def test_advance_compares_every_field_of_the_expected_head() -> None:
    engine, sessions = _engine([(1, 1)])
    engine.journal.advance(4, HEAD, replace(HEAD, round=2, sequence=2))
    statement, given, _ = sessions.asked[0]
    assert statement == tables.NEXT_HEAD
    old = {name: value for name, value in given.items() if name.startswith("old_")}
    assert old == {
        "old_round": 1,
        "old_sequence": 1,
        "old_manifest": b"m" * 32,
        "old_term": 1,
    }


def test_advance_of_a_lower_term_is_stale() -> None:
    engine, _ = _engine([(0, 0)], [(9,)])
    with pytest.raises(StaleTerm):
        engine.journal.advance(4, None, HEAD)


def test_advance_that_was_done_before_is_done_and_raises_the_term() -> None:
    engine, sessions = _engine([(1, 0)], [("run", 1, 1, b"m" * 32, 1)], [(1,)])
    engine.journal.advance(4, None, HEAD)
    assert sessions.asked[-1][1]["term"] == 4


@pytest.mark.parametrize("answer", [[(1, 0)], AlreadyExists("entry")])
def test_advance_from_another_head_is_a_conflict(answer: Any) -> None:
    engine, _ = _engine(answer, [("run", 1, 2, b"x" * 32, 1)])
    with pytest.raises(Conflict, match="head of run is round 1"):
        engine.journal.advance(4, None, HEAD)


def test_advance_whose_answer_was_lost_is_unknown() -> None:
    engine, _ = _engine(OutcomeUnknown("no answer"))
    with pytest.raises(OutcomeUnknown):
        engine.journal.advance(4, None, HEAD)


def test_step_of_a_later_version_is_a_storage_error() -> None:
    engine, _ = _engine([(1, "run", 1, "dance", "", "op", b"{}")])
    with pytest.raises(StorageError, match="'dance'"):
        list(engine.journal.entries("run", 0))
