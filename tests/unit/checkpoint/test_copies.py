"""A bad copy is found, and replaced only by bytes that verified."""

from itertools import combinations

import pytest

from fedsecure.checkpoint.copies import (
    Copy,
    Foreign,
    Looked,
    Mend,
    State,
    look,
    mend,
    plan,
)
from fedsecure.errors import VerificationError
from fedsecure.stores import Store
from tests.fakes.disk import PowerLost
from tests.fakes.store import FlakyStore, Power

GOOD, KEY = b"good bytes", "obj/1"


def judge(data: bytes) -> None:
    if data == b"theirs":
        raise Foreign("theirs")
    if data != GOOD:
        raise VerificationError("other bytes")


def three(*contents: bytes | None) -> list[FlakyStore]:
    stores = [FlakyStore() for _ in contents]
    for store, content in zip(stores, contents, strict=True):
        if content is not None:
            store.objects[KEY] = content
    return stores


def named(stores: list[FlakyStore]) -> list[tuple[str, Store]]:
    return [(str(i), store) for i, store in enumerate(stores)]


def states(stores: list[FlakyStore]) -> list[State]:
    return [c.state for c in look(named(stores), KEY, 100, judge).copies]


def test_each_copy_is_told_apart() -> None:
    stores = three(GOOD, None, b"theirs", b"bad", GOOD)
    stores[4].down = True
    assert states(stores) == [
        State.GOOD,
        State.MISSING,
        State.FOREIGN,
        State.CHANGED,
        State.SILENT,
    ]


def test_a_copy_that_is_too_large_is_changed() -> None:
    assert states(three(bytes(101))) == [State.CHANGED]


@pytest.mark.parametrize("bad", [None, b"bad", b"theirs"])
@pytest.mark.parametrize("places", [*combinations(range(3), 1), (0, 1), (1, 2)])
def test_repair_makes_one_or_two_bad_copies_of_three_good(
    places: tuple[int, ...], bad: bytes | None
) -> None:
    stores = three(*(bad if i in places else GOOD for i in range(3)))
    looked = look(named(stores), KEY, 100, judge)
    assert mend(named(stores), looked, plan(looked)) == len(places)
    assert states(stores) == [State.GOOD] * 3


def test_without_a_good_copy_nothing_is_planned() -> None:
    looked = look(named(three(b"bad", None)), KEY, 100, judge)
    assert plan(looked) == ()
    assert mend(named(three(b"bad", None)), looked, [Mend(0, replace=True)]) == 0


def test_a_silent_store_is_left_alone() -> None:
    looked = Looked(KEY, (Copy(0, State.GOOD), Copy(1, State.SILENT)), GOOD, 10)
    assert plan(looked) == ()


@pytest.mark.parametrize("step", range(1, 5))
def test_repair_goes_on_after_power_was_lost_at_any_step(step: int) -> None:
    stores = three(GOOD, b"bad", b"bad")
    looked, power = look(named(stores), KEY, 100, judge), Power(step)
    for store in stores:
        store.power = power
    with pytest.raises(PowerLost):
        mend(named(stores), looked, plan(looked))
    for store in stores:
        store.power = Power()
    looked = look(named(stores), KEY, 100, judge)
    mend(named(stores), looked, plan(looked))
    assert states(stores) == [State.GOOD] * 3


def test_a_copy_written_meanwhile_is_no_error() -> None:
    stores = three(GOOD, None)
    looked = look(named(stores), KEY, 100, judge)
    stores[1].objects[KEY] = b"by its writer"
    mend(named(stores), looked, plan(looked))
    assert stores[1].objects[KEY] == b"by its writer"
