"""Every object comes under the new key, whenever the power is lost meanwhile."""

import contextlib

import pytest

from fedsecure import registry
from fedsecure.access.roster import Role
from fedsecure.checkpoint.copies import BAD, State
from fedsecure.checkpoint.inventory import Inventory, take
from fedsecure.checkpoint.judge import Judge
from fedsecure.checkpoint.rack import Rack, box_rack, kek_rack
from fedsecure.checkpoint.rewrap import BESIDE, left, rewrap_all
from fedsecure.checkpoint.seal import from_bytes
from fedsecure.errors import StorageError
from fedsecure.keks import Kek
from fedsecure.keys import BoxKey
from tests.fakes.checkpoints import finished, stores
from tests.fakes.disk import PowerLost
from tests.fakes.federation import Federation
from tests.fakes.metadata import engine
from tests.fakes.store import FlakyStore, Power

ROUNDS = 2
OBJECTS = ROUNDS + 1  # releases and one beginning
STEPS = 4  # of one copy


def _kek(name: str) -> Kek:
    settings = {"name": name, "key": BoxKey.from_bytes(name.encode().ljust(32))}
    made: Kek = registry.load("keks", "file").create(settings)
    return made


NEW, NEWER = _kek("new"), _kek("newer")


def old(federation: Federation) -> Kek:
    settings = {"name": "agg-1", "key": federation.box("agg-1")}
    made: Kek = registry.load("keks", "file").create(settings)
    return made


def looked(federation: Federation, rack: Rack) -> Inventory:
    members = federation.roster.members.values()
    judge = Judge(
        "agg-1",
        federation.box("agg-1"),
        {m.name: m.signing for m in members if m.role == Role.AGGREGATOR},
        {m.name: m.signing for m in members if m.role == Role.SITE},
        rack=rack,
    )
    return take(stores(federation), judge, engine(federation.state).journal.head)


def rewrapped(federation: Federation, rack: Rack) -> int:
    done = list(rewrap_all(looked(federation, rack), rack))
    assert [one.why for one in done if one.why] == []
    return sum(one.copies for one in done)


def bad(federation: Federation, rack: Rack) -> list[tuple[str, State]]:
    return [
        (found.key, copy.state)
        for found in looked(federation, rack).examine()
        for copy in found.copies
        if copy.state in BAD
    ]


@pytest.fixture
def federation() -> Federation:
    return finished(ROUNDS)


def test_the_new_key_alone_opens_everything_afterwards(federation: Federation) -> None:
    both = kek_rack(NEW, [old(federation)])
    assert rewrapped(federation, both) == OBJECTS * len(federation.stores)
    only_new = kek_rack(NEW, [])
    assert bad(federation, only_new) == []
    assert left(looked(federation, only_new), only_new) == ()


def test_the_old_key_opens_nothing_afterwards(federation: Federation) -> None:
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    before = box_rack("agg-1", federation.box("agg-1"), {})
    found = {key.split("/")[0] for key, _ in bad(federation, before)}
    assert found == {"begin", "obj"}


def test_names_and_manifests_stay(federation: Federation) -> None:
    before = [sorted(s.objects) for s in federation.stores]
    manifests = [
        {k: v for k, v in s.objects.items() if k.startswith("manifest/")}
        for s in federation.stores
    ]
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    assert [sorted(s.objects) for s in federation.stores] == before
    for store, was in zip(federation.stores, manifests, strict=True):
        assert {k: store.objects[k] for k in was} == was


def test_the_data_is_not_encrypted_again(federation: Federation) -> None:
    def chunks() -> list[tuple[bytes, ...]]:
        return [
            tuple(bytes(c) for c in from_bytes(data).chunks)
            for store in federation.stores
            for key, data in sorted(store.objects.items())
            if key.startswith(("obj/", "begin/"))
        ]

    before = chunks()
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    assert chunks() == before


def test_every_store_gets_the_same_bytes(federation: Federation) -> None:
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    first, *others = (s.objects for s in federation.stores)
    assert all(other == first for other in others)


def test_a_repeat_has_nothing_to_do(federation: Federation) -> None:
    both = kek_rack(NEW, [old(federation)])
    rewrapped(federation, both)
    assert rewrapped(federation, both) == 0


def test_there_is_a_way_back_to_the_kits_own_keys(federation: Federation) -> None:
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    boxes = {a: federation.box(a).public for a in federation.aggregators}
    back = Rack(boxes, {"new": NEW, "agg-1": federation.box("agg-1")})
    assert rewrapped(federation, back) == OBJECTS * len(federation.stores)
    second = box_rack("agg-2", federation.box("agg-2"), {})
    assert bad(federation, second) == []


def test_keys_may_follow_one_another(federation: Federation) -> None:
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    rewrapped(federation, kek_rack(NEWER, [NEW]))
    assert bad(federation, kek_rack(NEWER, [])) == []


@pytest.mark.parametrize("count", [1, 3])
def test_power_lost_before_any_step_loses_nothing_and_a_repeat_finishes(
    federation: Federation, count: int
) -> None:
    del federation.stores[count:]
    begun = [dict(s.objects) for s in federation.stores]
    both, only_new = kek_rack(NEW, [old(federation)]), kek_rack(NEW, [])
    for dies_at in range(1, STEPS * OBJECTS * count + 2):
        for store, objects in zip(federation.stores, begun, strict=True):
            store.objects = dict(objects)
        _power(federation.stores, Power(dies_at))
        with contextlib.suppress(PowerLost):
            rewrapped(federation, both)
        _power(federation.stores, Power())
        for store in federation.stores:  # each copy is whole, in its place or beside
            held = {key.removeprefix(BESIDE) for key in store.objects}
            assert sum(k.startswith(("obj/", "begin/")) for k in held) == OBJECTS
        rewrapped(federation, both)
        assert left(looked(federation, only_new), only_new) == ()
        assert not any(
            k.startswith(BESIDE) for s in federation.stores for k in s.keys("")
        )
    assert bad(federation, only_new) == []


def _power(stores: list[FlakyStore], power: Power) -> None:
    for store in stores:
        store.power = power


def test_a_store_that_is_down_stops_it_before_anything(federation: Federation) -> None:
    federation.stores[2].down = True
    before = dict(federation.stores[0].objects)
    with pytest.raises(StorageError, match="store-2 does not answer"):
        rewrapped(federation, kek_rack(NEW, [old(federation)]))
    assert federation.stores[0].objects == before


def test_a_changed_copy_is_left_for_restore(federation: Federation) -> None:
    key = next(k for k in federation.stores[0].objects if k.startswith("obj/"))
    federation.stores[0].flip(key)
    flipped = federation.stores[0].objects[key]
    both = kek_rack(NEW, [old(federation)])
    rewrapped(federation, both)
    assert federation.stores[0].objects[key] == flipped
    assert left(looked(federation, both), both) == (key,)


def test_an_object_under_a_key_that_is_not_here_is_named(
    federation: Federation,
) -> None:
    rewrapped(federation, kek_rack(NEW, [old(federation)]))
    lacking = kek_rack(NEWER, [old(federation)])
    done = list(rewrap_all(looked(federation, lacking), lacking))
    assert len(done) == OBJECTS
    assert all("under new: name that key" in one.why for one in done)
