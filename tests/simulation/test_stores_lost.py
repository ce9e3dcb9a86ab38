"""Too few stores stop a run before anything counts; once they are back it goes on."""

from datetime import timedelta

import pytest

from fedsecure.checkpoint.retention import Facts, Rules, carry_out, sweep
from fedsecure.errors import NotEnoughReplicas
from fedsecure.metadata import Step
from fedsecure.server_round import read_detail
from tests.fakes.checkpoints import inventory, stores
from tests.fakes.federation import Federation
from tests.fakes.history import violations


@pytest.mark.parametrize("lost", [(0, 1), (1, 2), (0, 1, 2)])
def test_a_run_stops_says_which_stores_and_goes_on_when_they_are_back(
    lost: tuple[int, ...],
) -> None:
    federation = Federation()
    for place in lost:
        federation.stores[place].down = True
    with pytest.raises(NotEnoughReplicas, match="2 must") as stopped:
        federation.lead()
    said = str(stopped.value)
    assert all(f"store-{place}: store is down" in said for place in lost)
    assert "bring one back" in said
    assert federation.journal() == []
    for store in federation.stores:
        store.down = False
    federation.lead("agg-2")
    assert violations(federation) == []


@pytest.mark.parametrize("puts", range(1, 12))
def test_stores_lost_at_any_write_leave_a_run_that_finishes(puts: int) -> None:
    federation = Federation()
    left = [puts]

    def tamper(_: str, data: bytes) -> bytes:
        left[0] -= 1
        if left[0] <= 0:
            federation.stores[0].down = federation.stores[2].down = True
        return data

    federation.tamper = tamper
    try:
        federation.lead()
    except NotEnoughReplicas:
        steps = [e for e in federation.journal() if e.step == Step.RELEASE]
        assert len(steps) < 2
    federation.tamper = lambda _, data: data
    for store in federation.stores:
        store.down = False
    federation.lead("agg-2")
    _remove_leftovers(federation)
    assert violations(federation) == []


def _remove_leftovers(federation: Federation) -> None:
    """Let retention remove what a store that was away still has of rounds long over."""
    rows = [e for e in federation.journal() if e.step == Step.UPDATE]
    over = frozenset(str(read_detail(e)["object"]) for e in rows)
    now = federation.clock.wall()
    rules = Rules(1, 0.0, 0.0, timedelta(hours=24))
    due = sweep(inventory(federation), Facts(over=over), rules, now, {})
    carry_out(stores(federation), due, now)
