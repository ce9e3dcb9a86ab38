"""Tables are made once, brought forward, and never taken back."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fedsecure import tables
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.postgres import Server, Sessions

SERVER = Server("", "postgresql at here", 1.0, insecure_plain=False)


class Pretended(Sessions):
    """A database of which only the tables' version is kept."""

    def __init__(self, version: int = 0, *, overtaken: bool = False) -> None:
        super().__init__(SERVER)
        self.version = version
        self.applied: list[str] = []
        self.overtaken = overtaken
        self.broken = False

    def ask(
        self,
        what: str,
        statement: str,
        given: Mapping[str, object] | None = None,
        *,
        writes: bool = False,
    ) -> Sequence[Any]:
        if "to_regclass" in statement:
            return [("format" if self.version else None,)]
        if statement == tables.VERSION:
            return [(self.version,)]
        if self.broken:
            raise StorageError("permission denied")
        self.version += 1
        if self.overtaken:
            self.overtaken = False
            raise StorageError("relation exists")
        self.applied.append(statement)
        return []


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "STEPS", ("one", "two", "three"))


def test_first_start_applies_every_step_in_order(three: None) -> None:
    database = Pretended()
    tables.bring_up(database, "s")
    assert database.applied == ["one", "two", "three"]


def test_tables_of_an_earlier_version_are_brought_forward(three: None) -> None:
    database = Pretended(1)
    tables.bring_up(database, "s")
    assert database.applied == ["two", "three"]


def test_tables_of_this_version_are_left_alone(three: None) -> None:
    database = Pretended(3)
    tables.bring_up(database, "s")
    assert database.applied == []


def test_tables_of_a_later_version_are_refused(three: None) -> None:
    with pytest.raises(
        ConfigurationError,
        match="schema s of postgresql at here is of format 4, this version knows 3",
    ):
        tables.bring_up(Pretended(4), "s")


def test_step_that_another_member_took_meanwhile_is_taken_once(three: None) -> None:
    database = Pretended(overtaken=True)
    tables.bring_up(database, "s")
    assert database.applied == ["two", "three"]


def test_step_that_fails_is_an_error(three: None) -> None:
    database = Pretended()
    database.broken = True
    with pytest.raises(StorageError, match="permission denied"):
        tables.bring_up(database, "s")


@pytest.mark.parametrize(
    "statement", [tables.APPEND, tables.FIRST_HEAD, tables.NEXT_HEAD]
)
def test_every_statement_that_writes_locks_and_compares_the_term(
    statement: str,
) -> None:
    lease = statement[: statement.index("INSERT INTO")]
    assert "WHERE term <= %(term)s" in lease
    assert "UPDATE" in lease  # the row itself, or FOR UPDATE
    assert "SET term = %(term)s" in statement
