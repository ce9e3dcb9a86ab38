"""A store that hangs costs one wait; the threads in it are bounded."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fedsecure.checkpoint.call import Moved
from fedsecure.checkpoint.patience import MOST, Bounds, Patience
from fedsecure.disk import SystemDisk
from fedsecure.errors import StorageError
from fedsecure.stores import Store
from fedsecure.stores.local import LocalStore
from tests.fakes.clock import FakeClock
from tests.fakes.hung import HungStore
from tests.fakes.store import FlakyStore

SOON = Bounds(0.1, 0.2)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungStore]:
    store = HungStore(LocalStore(tmp_path, SystemDisk()))
    yield store
    store.come_back()


def _list(store: Store, _: Moved) -> tuple[str, ...]:
    return store.keys("")


def _asked(patience: Patience, *stores: Store, needed: bool = False) -> list[str]:
    """Ask all stores; return what failed, by store."""
    pairs = [(f"store-{n}", s) for n, s in enumerate(stores, 1)]
    out = []
    calls = patience.in_turn(pairs, _list, lambda: not needed, lambda _: not needed)
    for call in calls:
        try:
            call.result()
        except StorageError as failed:
            out.append(f"{call.name}: {failed}")
    return out


def test_a_store_that_hangs_is_left_and_the_others_are_asked(hung: HungStore) -> None:
    patience = Patience(FakeClock(), SOON)
    (left,) = _asked(patience, hung, FlakyStore())
    assert left.startswith("store-1: it does not return")
    assert patience.stuck("store-1")
    assert not patience.stuck("store-2")


def test_who_can_do_without_it_asks_it_no_more(hung: HungStore) -> None:
    patience = Patience(FakeClock(), SOON)
    for _ in range(5):
        _asked(patience, hung, FlakyStore())
    assert hung.asked == 1


def test_who_needs_it_asks_it_again_but_leaves_two_threads_at_most(
    hung: HungStore,
) -> None:
    patience = Patience(FakeClock(), SOON)
    for _ in range(MOST + 2):
        last = _asked(patience, hung, needed=True)
    assert hung.asked == MOST
    assert last == [f"store-1: {MOST} calls into it have not returned"]


def test_a_store_whose_call_returns_is_asked_again(hung: HungStore) -> None:
    patience = Patience(FakeClock(), SOON)
    call = patience.begin("store-1", partial(_list, hung))
    assert list(patience.gather([call], lambda: True)) == [call]
    assert patience.stuck("store-1")
    hung.come_back()
    assert call.wait(30.0)
    for thread in [t for t in threading.enumerate() if t.name == "store store-1"]:
        thread.join(30.0)  # its last step follows its answer
    assert _asked(patience, hung) == []


def test_who_stops_early_leaves_what_has_not_come_back(hung: HungStore) -> None:
    patience = Patience(FakeClock(), SOON)
    pairs: list[tuple[str, Store]] = [("store-1", hung), ("store-2", FlakyStore())]
    calls = patience.in_turn(pairs, _list, lambda: False, lambda _: False)
    assert next(calls).name == "store-2"
    calls.close()
    assert patience.stuck("store-1")


def test_a_store_that_hangs_comes_last(hung: HungStore) -> None:
    patience, healthy = Patience(FakeClock(), SOON), FlakyStore()
    _asked(patience, hung, healthy)
    pairs: list[tuple[str, Store]] = [("store-1", hung), ("store-2", healthy)]
    assert [name for name, _ in patience.order(pairs)] == ["store-2", "store-1"]


class Timed(FlakyStore):
    """A store slower than anybody lingers, whose calls end by themselves."""

    ends_by_itself = True

    def keys(self, prefix: str) -> tuple[str, ...]:
        threading.Event().wait(0.5)
        return super().keys(prefix)


def test_stores_that_end_by_themselves_are_asked_one_after_the_other() -> None:
    """Several that share a link would get slower side by side, and none would do it."""
    patience, running = Patience(FakeClock(), SOON), threading.active_count()
    pairs = [(f"store-{n}", Timed()) for n in (1, 2)]
    calls = patience.in_turn(pairs, _list, lambda: False, lambda _: False)
    for call in calls:
        assert call.over
        assert threading.active_count() <= running + 1
        assert call.result() == ()
