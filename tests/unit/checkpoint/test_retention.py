"""Nothing a site may still need is removed, and a crash leaves nothing half known."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.checkpoint.inventory import Inventory
from fedsecure.checkpoint.retention import (
    Act,
    Due,
    Facts,
    Rules,
    carry_out,
    is_complete,
    kept,
    mark_key,
    read_marks,
    require_all,
    sweep,
)
from fedsecure.errors import StorageError
from fedsecure.metadata import Step
from tests.fakes.checkpoints import bad, finished, inventory, keys, stores
from tests.fakes.disk import PowerLost
from tests.fakes.federation import RUN, Federation
from tests.fakes.metadata import engine
from tests.fakes.store import Power

NOW = datetime(2030, 1, 31, tzinfo=UTC)
NOTHING = Rules(0, 0.0, 0.0, timedelta(hours=24))


def facts(federation: Federation, *, complete: bool = True) -> Facts:
    begins = tuple(keys(federation, "begin/"))
    runs = frozenset({RUN}) if complete else frozenset[str]()
    return Facts(runs, frozenset(begins), frozenset(), {RUN: begins})


def steps(federation: Federation, rules: Rules = NOTHING, **known: bool) -> list[Due]:
    found = inventory(federation)
    marks = read_marks(found.stores, found.held)
    return sweep(found, facts(federation, **known), rules, NOW, marks)


def removed(due: Iterable[Due]) -> set[str]:
    return {step.key for step in due if step.act == Act.REMOVE}


# --- rules ----------------------------------------------------------------------------

ENDED = {f"run-{day}": NOW - timedelta(days=day) for day in range(10)}


def test_the_last_runs_stay() -> None:
    rules = replace(NOTHING, last=2, days=-1)
    assert kept(ENDED, rules, NOW) == {"run-0", "run-1"}


def test_runs_of_the_last_days_stay() -> None:
    assert kept(ENDED, replace(NOTHING, days=1), NOW) == {"run-0", "run-1"}


@given(st.integers(1, 5), st.sets(st.sampled_from(sorted(ENDED))))
def test_one_run_in_each_period_stays_whatever_was_removed_before(
    every: int, lost: set[str]
) -> None:
    rules = replace(NOTHING, every=every, days=-1)
    stay = kept(ENDED, rules, NOW)
    left = {r: t for r, t in ENDED.items() if r in stay or r not in lost}
    assert kept(left, rules, NOW) == stay


# --- runs -----------------------------------------------------------------------------


def test_a_complete_run_that_no_rule_keeps_goes_whole() -> None:
    federation = finished()
    carry_out(stores(federation), steps(federation), NOW)
    assert [k for k in keys(federation, "") if k != "federation"] == []


def test_a_run_that_is_not_complete_stays() -> None:
    federation = finished()
    assert steps(federation, complete=False) == []


def test_a_run_that_a_rule_keeps_stays() -> None:
    federation = finished()
    assert steps(federation, replace(NOTHING, last=1)) == []


def test_a_run_is_complete_once_its_last_release_is_published() -> None:
    federation = finished()
    head, entries = engine(federation.state).journal.head(RUN), federation.journal()
    assert is_complete(head, entries)
    before = [e for e in entries if (e.round, e.step) != (2, Step.PUBLISH)]
    assert not is_complete(head, before)
    opened = replace(next(e for e in entries if e.step == Step.OPEN), round=3)
    assert not is_complete(head, [*entries, opened])
    assert is_complete(head, [*entries, opened, replace(opened, step=Step.SKIP)])
    assert not is_complete(None, entries)


def test_wherever_power_is_lost_a_repeat_removes_the_rest() -> None:
    whole = finished()
    last = sum(len(s.objects) for s in whole.stores)
    for step in range(1, last + 1):
        federation = finished()
        known = facts(federation)
        power = Power(step)
        for store in federation.stores:
            store.power = power
        with pytest.raises(PowerLost):
            carry_out(stores(federation), steps(federation), NOW)
        for store in federation.stores:
            store.power = Power()
        due = sweep(inventory(federation), known, NOTHING, NOW, {})
        carry_out(stores(federation), due, NOW)
        assert keys(federation, "manifest/") == []
        assert keys(federation, "obj/") == []


# --- what nobody names ----------------------------------------------------------------

ORPHAN = "obj/" + "0" * 64


def with_orphan() -> Federation:
    federation = finished()
    for store in federation.stores:
        store.objects[ORPHAN] = b"of a dead writer"
    return federation


def test_an_orphan_is_marked_first() -> None:
    due = steps(with_orphan(), complete=False)
    assert [(d.act, d.key) for d in due] == [(Act.MARK, ORPHAN)]


def after(federation: Federation, hours: float) -> list[Due]:
    carry_out(stores(federation), steps(federation, complete=False), NOW)
    found = inventory(federation)
    marks = read_marks(found.stores, found.held)
    later = NOW + timedelta(hours=hours)
    return sweep(found, facts(federation, complete=False), NOTHING, later, marks)


def test_within_the_grace_period_it_stays() -> None:
    assert removed(after(with_orphan(), 23)) == set()


def test_after_the_grace_period_it_goes_with_its_mark() -> None:
    federation = with_orphan()
    carry_out(stores(federation), after(federation, 24), NOW)
    assert ORPHAN not in keys(federation, "obj/")
    assert keys(federation, "mark/") == []


def test_an_object_that_is_named_meanwhile_stays() -> None:
    federation = finished()
    named = keys(federation, "obj/")[0]
    for store in federation.stores:
        store.objects[mark_key(named)] = b"2020-01-01T00:00:00+00:00"
    due = steps(federation, complete=False)
    assert [(d.act, d.key) for d in due] == [(Act.UNMARK, named)]


def test_nothing_is_marked_while_a_chain_has_a_gap() -> None:
    federation = with_orphan()
    for store in federation.stores:
        del store.objects[f"manifest/{RUN}/00000001"]
    assert steps(federation, complete=False) == []


def test_an_update_of_a_round_that_is_over_goes_at_once() -> None:
    federation = finished()
    federation.stores[1].objects["update/1"] = b"left by a store that was away"
    found = inventory(federation)
    known = replace(facts(federation, complete=False), over=frozenset({"update/1"}))
    assert removed(sweep(found, known, NOTHING, NOW, {})) == {"update/1"}


def test_a_mark_that_cannot_be_read_starts_the_grace_period_again() -> None:
    federation = with_orphan()
    federation.stores[0].objects[mark_key(ORPHAN)] = b"yesterday"
    assert read_marks(stores(federation), [mark_key(ORPHAN)]) == {}


def test_nothing_is_removed_while_a_store_does_not_answer() -> None:
    federation = finished()
    federation.stores[2].down = True
    found: Inventory = inventory(federation)
    with pytest.raises(StorageError, match="store-2: store is down"):
        require_all(found)


def test_what_stays_is_as_good_as_before() -> None:
    federation = with_orphan()
    carry_out(stores(federation), after(federation, 24), NOW)
    assert list(bad(inventory(federation))) == []
