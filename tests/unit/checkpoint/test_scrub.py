"""A pass over the stores finds every flipped bit and mends it, within a bandwidth."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.checkpoint.scrub import MB, Scrubbed, pause, scrub
from tests.fakes.checkpoints import bad, finished, inventory, keys
from tests.fakes.federation import RUN, Federation

PREFIXES = ("manifest/", "obj/", "begin/")


def passed(federation: Federation, mb_per_s: float = 10.0) -> Scrubbed:
    found = inventory(federation)
    clock = federation.clock

    def wait(seconds: float) -> bool:
        clock.sleep(seconds)
        return True

    return scrub(found, mb_per_s, clock.now, wait)


def test_good_stores_are_left_as_they_are() -> None:
    federation = finished()
    before = [dict(s.objects) for s in federation.stores]
    found = passed(federation)
    assert (found.bad, found.mended, found.lost) == (0, 0, ())
    assert [s.objects for s in federation.stores] == before


@pytest.mark.parametrize(
    "places", [*combinations(range(3), 1), *combinations(range(3), 2)]
)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_flip_on_one_or_two_of_three_stores_is_mended(
    places: tuple[int, ...], prefix: str
) -> None:
    federation = finished()
    before = [dict(s.objects) for s in federation.stores]
    flipped = keys(federation, prefix)
    for place in places:
        for key in flipped:
            federation.stores[place].flip(key)
    found = passed(federation)
    assert found.bad == found.mended == len(places) * len(flipped)
    assert [s.objects for s in federation.stores] == before


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_store_that_came_back_empty_is_filled(prefix: str) -> None:
    federation = finished()
    for key in keys(federation, prefix):
        del federation.stores[2].objects[key]
    passed(federation)
    assert list(bad(inventory(federation))) == []


def test_a_key_that_is_bad_everywhere_is_named_and_left() -> None:
    federation = finished()
    key = keys(federation, "obj/")[0]
    for store in federation.stores:
        store.flip(key)
    before = [dict(s.objects) for s in federation.stores]
    found = passed(federation)
    assert (found.lost, found.mended) == ((key,), 0)
    assert [s.objects for s in federation.stores] == before


def test_an_update_that_was_dropped_is_not_brought_back() -> None:
    federation = finished()
    federation.stores[0].objects["update/1"] = b"left by a leader that died"
    passed(federation)
    assert "update/1" not in federation.stores[1].objects


def test_a_run_that_retention_removed_meanwhile_is_no_loss() -> None:
    federation = finished()
    found = inventory(federation)
    for store in federation.stores:
        del store.objects[f"manifest/{RUN}/00000001"]
    assert scrub(found, 10.0, federation.clock.now, lambda _: True).lost == ()


def test_a_store_that_is_down_is_passed_over() -> None:
    federation = finished()
    federation.stores[1].down = True
    assert passed(federation).bad == 0


def test_a_pass_ends_when_it_is_told_to() -> None:
    federation = finished()
    found = scrub(inventory(federation), 10.0, federation.clock.now, lambda _: False)
    assert found.keys == 1


def test_a_pass_takes_the_time_its_bytes_need() -> None:
    federation = finished()
    started = federation.clock.now()
    found = passed(federation, mb_per_s=0.001)
    took = federation.clock.now() - started
    assert took == pytest.approx(found.read / (0.001 * MB))


@given(st.integers(0, 1 << 40), st.floats(0, 1e6), st.floats(0.001, 1e5))
def test_bytes_never_exceed_the_bandwidth(read: int, took: float, rate: float) -> None:
    assert read <= (took + pause(read, took, rate)) * rate * MB * (1 + 1e-9)
