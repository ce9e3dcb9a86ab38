"""Every kind of bad copy on every store is found in one look, and named."""

import pytest

from fedsecure.checkpoint.copies import State
from tests.fakes.checkpoints import bad, finished, inventory, keys
from tests.fakes.federation import RUN, Federation


@pytest.fixture
def federation() -> Federation:
    return finished()


def test_stores_of_a_finished_run_are_good(federation: Federation) -> None:
    assert list(bad(inventory(federation))) == []


def test_the_releases_are_the_chain(federation: Federation) -> None:
    assert [m.round for m in inventory(federation).chains[RUN].links] == [1, 2]


@pytest.mark.parametrize("prefix", ["manifest/", "obj/", "begin/"])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("at", [0, 70, -1])
def test_a_flipped_bit_is_found(
    federation: Federation, prefix: str, place: int, at: int
) -> None:
    for key in keys(federation, prefix):
        federation.stores[place].flip(key, at)
        assert list(bad(inventory(federation))) == [(place, key, State.CHANGED)]
        federation.stores[place].flip(key, at)


@pytest.mark.parametrize("prefix", ["manifest/", "obj/", "begin/"])
def test_a_missing_copy_is_found(federation: Federation, prefix: str) -> None:
    for key in keys(federation, prefix):
        del federation.stores[1].objects[key]
    found = list(bad(inventory(federation)))
    assert found == [(1, key, State.MISSING) for key in keys(federation, prefix)]


def test_an_object_that_is_on_no_store_is_missed(federation: Federation) -> None:
    lost = keys(federation, "obj/")[0]
    for store in federation.stores:
        del store.objects[lost]
    found = list(bad(inventory(federation)))
    assert found == [(place, lost, State.MISSING) for place in range(3)]


def test_a_manifest_that_is_on_no_store_breaks_the_chain(
    federation: Federation,
) -> None:
    for store in federation.stores:
        del store.objects[f"manifest/{RUN}/00000001"]
    chain = inventory(federation).chains[RUN]
    assert [m.round for m in chain.links] == [2]
    assert chain.missing


def test_what_is_nobodys_is_foreign(federation: Federation) -> None:
    federation.stores[2].objects["holiday.jpg"] = b"a picture"
    found = list(bad(inventory(federation)))
    assert (2, "holiday.jpg", State.FOREIGN) in found


def test_a_manifest_under_another_number_is_foreign(federation: Federation) -> None:
    objects = federation.stores[0].objects
    objects[f"manifest/{RUN}/00000009"] = objects[f"manifest/{RUN}/00000001"]
    found = list(bad(inventory(federation)))
    assert (0, f"manifest/{RUN}/00000009", State.FOREIGN) in found


def test_a_store_that_is_down_is_silent_not_bad(federation: Federation) -> None:
    federation.stores[1].down = True
    found = inventory(federation)
    assert list(found.silent) == [1]
    assert list(bad(found)) == []
