"""Heads that a site signs and others keep: the longest wins, forgeries are nothing."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import VerificationError
from fedsecure.keys import SigningKey, VerifyKey
from fedsecure.receipts import (
    MAX_ROWS,
    ROWS_A_LINE,
    KnownHeads,
    SignedHead,
    heads_document,
    read_heads,
)
from fedsecure.update import JSON

A, B = SigningKey.from_bytes(b"a" * 32), SigningKey.from_bytes(b"b" * 32)
KEYS = {"a": A.public, "b": B.public}


def _head(seq: int, site: str = "a", key: SigningKey = A) -> SignedHead:
    return SignedHead.make(site, seq, bytes([seq % 256]) * 32, key)


def _known() -> KnownHeads:
    return KnownHeads(KEYS.get)


def test_head_is_its_owner_s() -> None:
    assert _head(3).is_by(A.public)


@pytest.mark.parametrize("key", [B.public, None])
def test_head_is_nobody_else_s(key: VerifyKey | None) -> None:
    assert not _head(3).is_by(key)


@pytest.mark.parametrize(
    "forged",
    [
        SignedHead("a", 4, _head(3).hash, _head(3).signature),
        SignedHead("b", 3, _head(3).hash, _head(3).signature),
        SignedHead("a", 3, bytes(32), _head(3).signature),
    ],
)
def test_no_fact_of_a_head_can_be_changed(forged: SignedHead) -> None:
    assert not forged.is_by(A.public)


def test_a_longer_head_replaces_a_shorter_one() -> None:
    known = _known()
    known.take([_head(3)])
    assert known.take([_head(5)]) == [_head(5)]
    assert known.longer_than({}) == [_head(5)]


def test_a_shorter_head_replaces_nothing() -> None:
    known = _known()
    known.take([_head(5)])
    assert known.take([_head(3), _head(5)]) == []
    assert known.longer_than({}) == [_head(5)]


def test_a_head_nobody_signed_is_passed_over() -> None:
    known = _known()
    assert known.take([_head(9, key=B)]) == []
    assert known.longer_than({}) == []


def test_a_stranger_s_head_is_passed_over() -> None:
    assert _known().take([_head(9, site="c")]) == []


def test_what_others_lack_is_what_is_longer_here() -> None:
    known = _known()
    known.take([_head(5), _head(7, "b", B)])
    shown = {"a": _head(5), "b": _head(6, "b", B)}
    assert known.longer_than(shown) == [_head(7, "b", B)]


def test_document_is_read_as_it_was_written() -> None:
    heads = {"a": _head(1), "b": _head(2**53 - 1, "b", B)}
    assert read_heads(heads_document(heads.values())) == heads


GOOD = cast("list[JSON]", heads_document([_head(3)])["a"])


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "heads",
        {"a": None},
        {"a": GOOD[:2]},
        {"a": [*GOOD, 1]},
        {"a": [0, *GOOD[1:]]},
        {"a": [True, *GOOD[1:]]},
        {"a": [2**53, *GOOD[1:]]},
        {"a": [3.0, *GOOD[1:]]},
        {"a": ["3", *GOOD[1:]]},
        {"a": [3, "0" * 63, GOOD[2]]},
        {"a": [3, "A" * 64, GOOD[2]]},
        {"a": [3, GOOD[1], "0" * 127]},
        {str(i): GOOD for i in range(MAX_ROWS + 1)},
    ],
)
def test_what_is_no_list_of_heads_is_refused(bad: JSON) -> None:
    with pytest.raises(VerificationError, match="head"):
        read_heads(bad)


def test_a_ledger_line_of_heads_fits_into_its_4_kib() -> None:
    heads = [_head(2**40, f"site-{'x' * 20}-{i}") for i in range(ROWS_A_LINE)]
    assert len(repr(heads_document(heads))) < 4096


@given(st.lists(st.integers(1, 60), max_size=20))
def test_whatever_the_order_the_longest_is_known(seqs: list[int]) -> None:
    known = _known()
    for seq in seqs:
        known.take([_head(seq)])
    assert [h.seq for h in known.longer_than({})] == ([max(seqs)] if seqs else [])
