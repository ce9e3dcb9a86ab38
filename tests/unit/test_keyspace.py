"""Keys that cannot meet, and terms that compare as numbers do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import StorageError
from fedsecure.etcdgateway import Cluster, Found, Gateway, text
from fedsecure.keyspace import Keys, digits

KEYS = Keys(Gateway(Cluster(("http://127.0.0.1:1",), 0.1)), "/p/")
NAMES = st.text(min_size=1, max_size=8)
STEPS = st.sampled_from(["open", "update"])


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_terms_compare_as_bytes_as_they_do_as_numbers(one: int, two: int) -> None:
    assert (digits(one) < digits(two)) == (one < two)


@given(
    st.tuples(NAMES, st.integers(0, 10**9), STEPS, NAMES),
    st.tuples(NAMES, st.integers(0, 10**9), STEPS, NAMES),
)
def test_two_steps_never_share_a_key(
    one: tuple[str, int, str, str], two: tuple[str, int, str, str]
) -> None:
    assert (KEYS.place(*one) == KEYS.place(*two)) == (one == two)


@given(NAMES, NAMES)
def test_one_runs_journal_is_no_part_of_anothers(one: str, two: str) -> None:
    if one != two:
        assert not KEYS.place(one, 1, "open", "").startswith(KEYS.journal(two))


def test_rounds_lie_in_their_order() -> None:
    assert KEYS.place("r", 9, "open", "") < KEYS.place("r", 10, "open", "")


def test_fence_lets_the_own_term_and_higher_ones_write() -> None:
    fence = KEYS.fence(7)
    assert (fence["target"], fence["result"]) == ("VALUE", "LESS")
    assert fence["value"] == text(digits(8))
    assert fence["key"] == text(b"/p/term")


@pytest.mark.parametrize("value", [None, b"", b"seven"])
def test_term_that_is_gone_stops_everything(value: bytes | None) -> None:
    now = {} if value is None else {"/p/term": Found("/p/term", value, 1, "0")}
    with pytest.raises(StorageError, match="/p/term is gone, and every write"):
        KEYS.highest(now)


def test_term_is_read() -> None:
    assert KEYS.highest({"/p/term": Found("/p/term", digits(41), 1, "0")}) == 41
