"""A body as named parts: the signed listing and the bytes must add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.envelope import Kind, Scope, Verified
from fedsecure.errors import VerificationError
from fedsecure.parts import MAX_PARTS, count, join, listing, one, split, text
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

SCOPE = Scope(RoundId("run", 1), "site", b"", b"", b"")


def _message(rows: JSON, body: bytes) -> Verified:
    return Verified(Kind.BEGIN, SCOPE, {"parts": rows}, body, "site", bytes(32))


@given(
    parts=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=20)), max_size=6)
)
def test_parts_come_back_in_order(parts: list[tuple[str, bytes]]) -> None:
    found = split(_message(listing(parts), join(parts)))
    assert [(name, bytes(data)) for name, data in found] == parts


def test_parts_are_views_of_the_body() -> None:
    body = b"aabbb"
    found = split(_message([["a", 2], ["b", 3]], body))
    assert [data.obj for _, data in found] == [body, body]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "ab",
        {"a": 1},
        [["a", 1]],
        [["a", 3]],
        [["a", -1], ["b", 3]],
        [["a", 2.0]],
        [["a", "2"]],
        [["a", None]],
        [[1, 2]],
        [["a"]],
        [["a", 2, 0]],
        ["a2"],
        [["a", 2]] * (MAX_PARTS + 1),
    ],
)
def test_listing_that_does_not_fit_is_refused(rows: JSON) -> None:
    with pytest.raises(VerificationError):
        split(_message(rows, b"12"))


def test_missing_listing_is_refused() -> None:
    bare = Verified(Kind.BEGIN, SCOPE, {}, b"", "site", bytes(32))
    with pytest.raises(VerificationError, match="field 'parts'"):
        split(bare)


def test_truth_is_no_length() -> None:
    with pytest.raises(VerificationError, match="is not"):
        split(_message([["a", True]], b"1"))


def test_first_of_two_parts_of_one_name_is_taken() -> None:
    first, second, third = (memoryview(data) for data in (b"1", b"2", b"3"))
    assert one([("a", first), ("b", second), ("a", third)], "a") is first


def test_part_that_is_not_there_is_none() -> None:
    assert one([("a", memoryview(b"1"))], "b") is None


@pytest.mark.parametrize("value", [None, 1, True, [], {}])
def test_field_that_is_no_text_is_refused(value: JSON) -> None:
    with pytest.raises(VerificationError, match="'name' is not a text"):
        text({"name": value}, "name")


@pytest.mark.parametrize("value", [None, "1", True, False, -1, 1.0, []])
def test_field_that_is_no_count_is_refused(value: JSON) -> None:
    with pytest.raises(VerificationError, match="'n' is not a count"):
        count({"n": value}, "n")


def test_fields_are_returned_as_they_are() -> None:
    assert text({"name": ""}, "name") == ""
    assert count({"n": 0}, "n") == 0
