"""Who looks at every copy is told of a store that hangs, and looks at the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsecure.checkpoint.bounded import BoundedStore, bounded
from fedsecure.checkpoint.inventory import take
from fedsecure.checkpoint.patience import Bounds, Patience
from fedsecure.checkpoint.scrub import scrub
from fedsecure.disk import SystemDisk
from fedsecure.errors import AlreadyExists, NotFound, StorageError
from fedsecure.metadata import Head
from fedsecure.stores import Store
from fedsecure.stores.local import LocalStore
from tests.fakes.checkpoints import finished, judge, stores
from tests.fakes.clock import FakeClock
from tests.fakes.hung import HungStore
from tests.fakes.store import FlakyStore


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungStore]:
    store = HungStore(LocalStore(tmp_path, SystemDisk()))
    yield store
    store.come_back()


def _patience() -> Patience:
    return Patience(FakeClock(), Bounds(0.1, 0.6))


def test_it_answers_as_its_store_does() -> None:
    store = BoundedStore("1", FlakyStore(), Patience(FakeClock(), Bounds()))
    store.put("a/1", b"v")
    assert (store.get("a/1", 1), store.keys("a/")) == (b"v", ("a/1",))
    with pytest.raises(AlreadyExists):
        store.put("a/1", b"w")
    store.delete("a/1")
    with pytest.raises(NotFound):
        store.get("a/1", 1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.get("k", 1),
        lambda store: store.put("k", b""),
        lambda store: store.keys(""),
        lambda store: store.delete("k"),
    ],
)
def test_a_store_that_hangs_fails_in_time(
    hung: HungStore, ask: Callable[[Store], object]
) -> None:
    with pytest.raises(StorageError, match="does not return"):
        ask(BoundedStore("1", hung, _patience()))


def test_it_fails_at_once_until_it_comes_back(hung: HungStore) -> None:
    store = BoundedStore("1", hung, _patience())
    for _ in range(5):
        with pytest.raises(StorageError, match="does not return"):
            store.keys("")
    assert hung.asked == 1


def test_copies_on_the_other_stores_are_scrubbed_while_one_hangs(
    hung: HungStore,
) -> None:
    federation = finished()
    named = [*stores(federation), ("hung", hung)]
    key = next(k for k in federation.stores[0].objects if k.startswith("obj/"))
    federation.stores[0].flip(key)

    def heads(_: str) -> Head | None:
        return None

    found = take(bounded(named, _patience()), judge(federation), heads)
    assert set(found.silent) == {3}
    scrub(found, 1e9, FakeClock().now, lambda _: True)
    assert len({store.objects[key] for store in federation.stores}) == 1
