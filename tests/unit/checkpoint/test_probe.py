"""Trying stores out: each broken promise is found, and nothing is left behind."""

import threading

import pytest

from fedsecure.checkpoint.probe import claim, require_owner, try_out
from fedsecure.errors import AlreadyExists, ConfigurationError, NotFound, StorageError
from tests.fakes.store import FlakyStore

OURS, THEIRS = "ab" * 32, "cd" * 32


class TwoWinners(FlakyStore):
    """Looks, waits for a second writer that looks too, and then writes."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2)

    def put(self, key: str, value: bytes) -> None:
        try:
            self.both.wait(timeout=1)
        except threading.BrokenBarrierError:
            raise AlreadyExists(key) from None
        self.objects[key] = value


class LastWins(FlakyStore):
    """Refuses the second writer, and keeps its bytes all the same."""

    def put(self, key: str, value: bytes) -> None:
        with self._turn:
            exists = key in self.objects
            self.objects[key] = value
        if exists:
            raise AlreadyExists(key)


class Unlisted(FlakyStore):
    def keys(self, prefix: str) -> tuple[str, ...]:
        return ()


class StillListed(FlakyStore):
    def delete(self, key: str) -> None:
        """Forget to."""


class Ghost(FlakyStore):
    """Lists a deleted object no more, and gives it back."""

    def __init__(self) -> None:
        super().__init__()
        self.ghosts: dict[str, bytes] = {}

    def delete(self, key: str) -> None:
        self.ghosts[key] = self.objects[key]
        super().delete(key)

    def get(self, key: str, max_bytes: int) -> bytes:
        try:
            return super().get(key, max_bytes)
        except NotFound:
            return self.ghosts[key]


def test_good_store_passes_and_is_left_as_it_was() -> None:
    store = FlakyStore()
    store.put("before", b"1")
    try_out(store)
    assert store.objects == {"before": b"1"}


@pytest.mark.parametrize(
    ("store", "words"),
    [
        (TwoWinners(), "2 of 2 creates of one key at the same moment"),
        (LastWins(), "other bytes than the winner"),
        (Unlisted(), "just written is not listed"),
        (StillListed(), "deleted object is still listed"),
        (Ghost(), "deleted object can still be read"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_broken_promise_is_found(store: FlakyStore, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        try_out(store, racers=2, rounds=4)


def test_store_that_fails_is_cleaned_up() -> None:
    store = LastWins()
    with pytest.raises(StorageError):
        try_out(store, racers=2, rounds=4)
    assert store.objects == {}


def test_store_that_is_down_says_so() -> None:
    store = FlakyStore()
    store.down = True
    with pytest.raises(StorageError, match="store is down"):
        try_out(store)


def test_store_of_nobody_becomes_ours_and_stays_ours() -> None:
    store = FlakyStore()
    claim(store, OURS)
    claim(store, OURS)
    assert store.objects == {"federation": f"fedsecure federation 1 {OURS}\n".encode()}


def test_store_of_another_federation_is_refused_and_untouched() -> None:
    store = FlakyStore()
    claim(store, THEIRS)
    with pytest.raises(ConfigurationError, match=f"{THEIRS[:16]}, ours is {OURS[:16]}"):
        claim(store, OURS)
    assert THEIRS.encode() in store.objects["federation"]


def test_whose_a_store_is_can_be_asked_without_claiming_it() -> None:
    store = FlakyStore()
    with pytest.raises(NotFound):
        require_owner(store, OURS)
    assert store.objects == {}
    claim(store, OURS)
    require_owner(store, OURS)
    with pytest.raises(ConfigurationError, match=f"{OURS[:16]}, ours is {THEIRS[:16]}"):
        require_owner(store, THEIRS)


def test_owner_that_is_no_name_is_not_repeated() -> None:
    store = FlakyStore()
    store.put("federation", b"<script>\n")
    with pytest.raises(ConfigurationError, match="federation unknown, ours"):
        claim(store, OURS)
