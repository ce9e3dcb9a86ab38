"""Which sites a standby serves, and what it makes of their answers."""

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import pytest
from flwr.supercore.task_identity import TaskIdentity  # noqa: TID251 - messages need it
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.flower.carrier import Carrier, share
from fedsecure.flower.post import Grid, Round, Timing
from tests.fakes.federation import Federation

NAMES = st.lists(st.text("abc", min_size=1), min_size=1, max_size=5, unique=True)
SITES = [f"site-{i}" for i in range(7)]


@given(names=NAMES, leads=st.integers(0, 4))
def test_every_site_is_served_by_one_standby(names: list[str], leads: int) -> None:
    holder = names[leads % len(names)]
    served = [s for n in names for s in share(n, names, holder, SITES)]
    assert sorted(served) == (SITES if len(names) > 1 else [])


@given(names=NAMES, leads=st.integers(0, 4))
def test_leader_serves_none_and_standbys_about_as_many_each(
    names: list[str], leads: int
) -> None:
    holder = names[leads % len(names)]
    shares = [len(share(n, names, holder, SITES)) for n in names if n != holder]
    assert share(holder, names, holder, SITES) == ()
    assert not shares or max(shares) - min(shares) <= 1


def released() -> tuple[Federation, Carrier]:
    federation = Federation(rounds=2, private=False)
    federation.lead("agg-1")
    tools = federation.leader("agg-2").tools
    return federation, Carrier(federation.terms, tools, federation.aggregators, 0)


def events(federation: Federation) -> list[str]:
    return [e for e, _ in federation.notes.events if e.endswith("carried")]


def test_release_is_carried_once() -> None:
    federation, carrier = released()
    for _ in range(3):
        carrier.turn("agg-1")
    assert events(federation) == ["carried"] * 3


def test_refusal_is_told_with_its_code() -> None:
    federation, carrier = released()
    site = federation.sites["site-2"]
    site.disk, site.store = type(site.disk)(), type(site.store)()
    site.die()
    carrier.turn("agg-1")
    found = {
        str(f["site"]): f["code"]
        for e, f in federation.notes.events
        if e == "not_carried"
    }
    assert list(found) == ["site-2"]
    assert found["site-2"]


def test_answer_that_a_site_did_not_sign_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    federation, carrier = released()
    federation.tamper = lambda _, data: data[:-1] + bytes([data[-1] ^ 1])
    carrier.turn("agg-1")
    assert events(federation) == []
    assert "carry: site-1" in caplog.text


def test_carrier_that_rests_sends_no_more() -> None:
    federation, carrier = released()
    federation.tamper = lambda *_: None  # no answer ever comes: it would go on asking
    carrier.turn("agg-1")
    carrier.turn("")
    federation.tamper = lambda _, data: data
    carrier.turn("agg-1")
    assert events(federation) == []


class Standing:
    """A SuperLink that stands still: what is pushed never returns."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.pushed = 0

    def push_messages(self, messages: Iterable[object]) -> list[str]:
        _ = messages
        self.pushed += 1
        self.goes_on.wait()
        return []

    def pull_messages(self, ids: Iterable[str]) -> list[object]:
        _ = ids
        return []


def test_superlink_that_stands_still_holds_one_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    federation, grid = Federation(rounds=4, private=False), Standing()
    nodes = {site: i + 1 for i, site in enumerate(federation.terms.sites)}
    tools = replace(
        federation.leader("agg-2").tools,
        post=lambda group: Round(
            cast("Grid", grid), lambda: nodes, group, 1 << 24, Timing(), 4
        ),
    )
    carrier = Carrier(federation.terms, tools, federation.aggregators, 0)
    full, before = federation.terms, threading.active_count()
    try:
        for number in (1, 2, 3, 4):
            federation.terms = replace(full, rounds=number)
            federation.lead("agg-1")
            carrier.turn("agg-1")
        assert threading.active_count() - before <= len(nodes)
        assert grid.pushed <= 1  # the others wait for the pen
    finally:
        carrier.turn("")
        grid.goes_on.set()


def test_release_that_is_not_taken_for_a_minute_is_carried_no_more() -> None:
    federation, carrier = released()
    federation.tamper = lambda *_: None
    carrier.turn("agg-1")
    federation.clock.sleep(61.0)
    carrier.turn("agg-1")
    federation.tamper = lambda _, data: data
    carrier.turn("agg-1")
    assert events(federation) == []
