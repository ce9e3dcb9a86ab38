"""A restore never goes over what is there."""

import pytest

from fedsecure.assembly.filing import (
    LEDGER,
    Act,
    Filed,
    check_index,
    check_name,
    chosen,
    decide,
    whole_lines,
)
from fedsecure.errors import VerificationError


def test_the_ledger_is_copied_last() -> None:
    files = ["state/shelf/run/out/1", LEDGER, "kit.json", "state/events.jsonl"]
    assert chosen(files)[-1] == LEDGER


@pytest.mark.parametrize(
    "name",
    [
        "state/flwr/source",
        "state/flwr-agg-1/apps/x",
        "state/home/a",
        "state/worker/b",
        "state/superlink.sqlite",
        "state/superlink.sqlite-wal",
        "state/daemon.log",
        "state/relay.sock",
        "state/ledger.jsonl.lock",
    ],
)
def test_what_is_made_anew_is_left_out(name: str) -> None:
    assert chosen([name, "kit.json"]) == ("kit.json",)


@pytest.mark.parametrize(
    "name", ["signing.key", "roster.d/2.json", "state/paused", "state/shelf/r/plan"]
)
def test_what_a_member_must_not_lose_is_chosen(name: str) -> None:
    assert chosen([name]) == (name,)


@pytest.mark.parametrize(
    "name", ["../kit.json", "/etc/passwd", "a//b", "a/./b", "", "a/..", "a\nb"]
)
def test_a_name_outside_the_kit_is_refused(name: str) -> None:
    with pytest.raises(VerificationError, match="not below a kit"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "there", "act"),
    [
        ("kit.json", None, Act.WRITE),
        ("kit.json", b"1\n2\n", Act.SAME),
        ("kit.json", b"1\n", Act.REFUSE),
        (LEDGER, b"1\n2\n3\n", Act.LONGER),
        (LEDGER, b"1\n", Act.CONTINUE),
        (LEDGER, b"1\nother\n", Act.REFUSE),
        ("state/shelf/run/plan", b"1\n", Act.REFUSE),
    ],
)
def test_what_becomes_of_a_file(name: str, there: bytes | None, act: Act) -> None:
    assert decide(name, there, b"1\n2\n") == act


def test_a_torn_last_line_is_left_out() -> None:
    assert whole_lines(b"1\n2\n3") == b"1\n2\n"


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"a": Filed("a", 1, "other")},
        {"a": Filed("a", 1, "d"), "b": Filed("b", 1, "d")},
    ],
)
def test_a_file_that_is_missing_changed_or_not_named_is_refused(
    found: dict[str, Filed],
) -> None:
    with pytest.raises(VerificationError, match="not what its index says"):
        check_index([Filed("a", 1, "d")], found)
