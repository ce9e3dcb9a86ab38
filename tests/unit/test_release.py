"""A release: one digest for one closed set and one sum, whoever signs it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.envelope import Kind, Scope, parse, sign, verify
from fedsecure.errors import VerificationError
from fedsecure.keys import SigningKey
from fedsecure.release import Release, plan_digest, read_release, release_of, root
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

KEY = SigningKey.from_bytes(b"k" * 32)
SITES = {"site-2": b"2" * 32, "site-1": b"1" * 32}
ROUND = RoundId("run", 3)


def _release(total: bytes = b"sum") -> Release:
    return release_of(ROUND, 2, SITES, total)


def _read(
    header: dict[str, JSON], body: bytes = b"sum", round_id: RoundId = ROUND
) -> Release:
    scope = Scope(round_id, "*", b"k" * 32, b"l" * 32, b"p" * 32)
    made = sign(Kind.RELEASE, scope, header, body, signer="agg", key=KEY)
    message = verify(parse(made.to_bytes(), 100_000), KEY.public, kinds=(Kind.RELEASE,))
    return read_release(message)


def test_release_comes_back_from_its_message() -> None:
    assert _read(_release().header()) == _release()


def test_term_and_signer_do_not_change_the_digest() -> None:
    assert _read({**_release().header(), "term": 9}).digest() == _release().digest()


def test_participants_are_sorted_by_site() -> None:
    assert _release().sites == ("site-1", "site-2")


@pytest.mark.parametrize(
    "other",
    [
        replace(_release(), round=RoundId("run", 4)),
        replace(_release(), round=RoundId("other", 3)),
        replace(_release(), after=1),
        replace(_release(), participants=(("site-1", b"1" * 32),)),
        release_of(ROUND, 2, {**SITES, "site-1": b"x" * 32}, b"sum"),
        _release(b"another sum"),
    ],
)
def test_digest_tells_releases_apart(other: Release) -> None:
    assert other.digest() != _release().digest()


def test_other_sum_than_the_one_named_is_refused() -> None:
    with pytest.raises(VerificationError, match="do not agree"):
        _read(_release().header(), b"another sum")


def test_release_of_another_round_is_refused() -> None:
    with pytest.raises(VerificationError, match="do not agree"):
        _read(_release().header(), round_id=RoundId("run", 4))


@pytest.mark.parametrize("after", [3, 4])
def test_release_that_builds_on_itself_or_later_is_refused(after: int) -> None:
    header = replace(_release(), after=after).header()
    with pytest.raises(VerificationError, match="later round"):
        _read(header)


HASH = "11" * 32


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        "site",
        ["site-1"],
        [["site-1"]],
        [["site-1", HASH, HASH]],
        [["site-1", 1]],
        [[1, HASH]],
        [["site-1", "zz"]],
        [["site-1", HASH[2:]]],
        [["site-2", HASH], ["site-1", HASH]],
        [["site-1", HASH], ["site-1", HASH]],
    ],
)
def test_participants_that_are_no_closed_set_are_refused(rows: JSON) -> None:
    with pytest.raises(VerificationError, match="release"):
        _read({**_release().header(), "participants": rows})


@pytest.mark.parametrize("field", ["run", "round", "after", "participants", "sum"])
def test_missing_field_is_refused(field: str) -> None:
    header = _release().header()
    del header[field]
    with pytest.raises(VerificationError):
        _read(header)


def test_digest_in_upper_case_is_refused() -> None:
    header = _release().header()
    with pytest.raises(VerificationError, match="do not agree"):
        _read({**header, "sum": str(header["sum"]).upper()})


PAIRS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.binary(min_size=32, max_size=32),
    min_size=1,
    max_size=4,
)


@given(one=PAIRS, two=PAIRS)
def test_root_is_equal_for_equal_sets_alone(
    one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    assert root(reversed(one.items())) == root(one.items())
    assert (root(one.items()) == root(two.items())) == (one == two)


def test_plan_digest_does_not_depend_on_the_order_of_fields() -> None:
    assert plan_digest({"a": 1, "b": [2]}) == plan_digest({"b": [2], "a": 1})
    assert plan_digest({"a": 1, "b": [2]}) != plan_digest({"a": 1, "b": [3]})
