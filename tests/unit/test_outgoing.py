"""Bytes on their way out: as many as announced, in pieces, and never copied twice."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import VerificationError
from fedsecure.outgoing import Outgoing, recut

PIECES = st.lists(st.binary(max_size=9), max_size=6)


@given(pieces=PIECES)
def test_bytes_are_those_of_the_pieces(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    out = Outgoing.of(*pieces)
    assert (len(out), out.to_bytes(), b"".join(out.pieces())) == (
        len(whole),
        whole,
        whole,
    )


def test_one_piece_of_bytes_is_not_copied() -> None:
    data = b"a" * 100
    assert Outgoing.of(data).to_bytes() is data


def test_a_view_ends_as_bytes() -> None:
    found = Outgoing.of(memoryview(b"abc")).to_bytes()
    assert (type(found), found) == (bytes, b"abc")


def test_nothing_is_read_before_it_is_wanted_and_it_can_be_wanted_twice() -> None:
    reads: list[int] = []

    def read() -> Iterable[bytes]:
        reads.append(1)
        return (b"ab", b"c")

    out = Outgoing(3, read)
    assert (len(out), reads) == (3, [])
    assert out.to_bytes() == out.to_bytes() == b"abc"
    assert len(reads) == 2


def test_fewer_bytes_than_announced_are_an_error_at_the_end() -> None:
    found = Outgoing(4, lambda: (b"abc",)).pieces()
    assert next(found) == b"abc"
    with pytest.raises(VerificationError, match="3 bytes on their way out, 4 "):
        next(found)


def test_more_bytes_than_announced_are_not_given_out() -> None:
    found = Outgoing(4, lambda: (b"abc", b"de")).pieces()
    assert next(found) == b"abc"
    with pytest.raises(VerificationError, match="5 bytes on their way out, 4 "):
        next(found)


@given(pieces=PIECES, size=st.integers(1, 12))
def test_recut_pieces_are_the_same_bytes_all_full_but_the_last(
    pieces: list[bytes], size: int
) -> None:
    found = list(recut(pieces, size))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(piece) == size for piece in found[:-1])
    assert all(0 < len(piece) <= size for piece in found[-1:])


def test_recut_asks_for_no_more_than_it_needs() -> None:
    given_out = []

    def pieces() -> Iterable[bytes]:
        for i in range(3):
            given_out.append(i)
            yield b"12"

    next(iter(recut(pieces(), 4)))
    assert given_out == [0, 1]
