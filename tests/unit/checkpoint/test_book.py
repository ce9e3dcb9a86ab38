"""Manifests on stores: written on W of them, and read if they are the committed one."""

from dataclasses import replace

import pytest

from fedsecure.checkpoint.book import Book, key_of
from fedsecure.checkpoint.manifest import Manifest
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.envelope import Scope
from fedsecure.errors import NotEnoughReplicas, VerificationError
from fedsecure.keys import SigningKey
from fedsecure.metadata import Head
from fedsecure.update import RoundId
from tests.fakes.clock import FakeClock
from tests.fakes.store import FlakyStore

KEY = SigningKey.from_bytes(b"k" * 32)
SCOPE = Scope(RoundId("run", 1), "*", b"k" * 32, b"l" * 32, b"p" * 32)


@pytest.fixture
def stores() -> list[FlakyStore]:
    return [FlakyStore() for _ in range(3)]


def book(stores: list[FlakyStore]) -> Book:
    pairs = [(str(i), store) for i, store in enumerate(stores)]
    keys = {"agg-1": KEY.public}
    return Book(Replicas(pairs, 2), "agg-1", KEY, keys, FakeClock(), "cd")


def manifest(from_book: Book) -> Manifest:
    return Manifest(
        **from_book.said(SCOPE),
        run="run",
        round=1,
        sequence=3,
        term=1,
        after=0,
        prev="",
        release="bb",
        root="cc",
        object="obj/dd",
        size=1,
    )


def head(of: Manifest) -> Head:
    return Head(of.run, of.round, of.sequence, of.digest(), of.term)


def test_what_was_written_is_read_by_its_head(stores: list[FlakyStore]) -> None:
    made = manifest(book(stores))
    book(stores).write(made)
    assert book(stores).committed(head(made)) == made
    assert (made.writer, made.app) == ("agg-1", "cd")


def test_another_manifest_under_the_number_is_not_the_committed_one(
    stores: list[FlakyStore],
) -> None:
    made = manifest(book(stores))
    book(stores).write(made)
    with pytest.raises(VerificationError, match="not the manifest that was committed"):
        book(stores).committed(head(replace(made, term=2)))


def test_fewer_than_w_stores_hold_no_manifest(stores: list[FlakyStore]) -> None:
    stores[0].down = stores[1].down = True
    with pytest.raises(NotEnoughReplicas):
        book(stores).write(manifest(book(stores)))


def test_numbers_are_those_any_store_has(stores: list[FlakyStore]) -> None:
    stores[1].put(key_of("run", 7), b"an orphan")
    stores[2].put("manifest/run/notes", b"no number")
    assert book(stores).sequences("run") == [7]
