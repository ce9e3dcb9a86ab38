"""Every engine and the fake that others are tested with answer alike."""

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsecure import registry
from fedsecure.errors import FedsecureError
from fedsecure.metadata import Engine, Head, Journal, JournalEntry, Step
from tests.fakes import metadata as fake
from tests.fakes.servers import etcd, no_etcd, no_postgresql, postgresql

Act = Callable[[Journal], None]
FEW = st.integers(1, 2)
ENTRY = st.builds(
    JournalEntry,
    st.just("run"),
    FEW,
    st.sampled_from([Step.OPEN, Step.UPDATE, Step.CLOSE]),
    st.sampled_from(["", "site-1"]),
    st.sampled_from(["op-1", "op-2", "op-3", "op-4"]),
    st.sampled_from([b"{}", b"[]"]),
)
HEAD = st.builds(Head, st.just("run"), FEW, FEW, st.sampled_from([b"a", b"b"]), FEW)


def _append(term: int, entries: list[JournalEntry]) -> Act:
    return lambda journal: journal.append(term, entries)


def _advance(term: int, new: Head, *, stale: bool) -> Act:
    def act(journal: Journal) -> None:
        journal.advance(term, None if stale else journal.head("run"), new)

    return act


ACTS = st.lists(
    st.builds(_append, st.integers(1, 3), st.lists(ENTRY, max_size=3))
    | st.builds(_advance, st.integers(1, 3), HEAD, stale=st.booleans()),
    max_size=12,
)


def _told(engine: Engine, act: Act) -> tuple[object, ...]:
    """Return what an act led to: the kind of error, and all that can be read."""
    refused = ""
    try:
        act(engine.journal)
    except FedsecureError as error:
        refused = type(error).__name__
    journal = engine.journal
    later = list(journal.entries("run", 2))
    return refused, list(journal.entries("run", 0)), later, journal.head("run")


@settings(max_examples=40)
@given(acts=ACTS)
def test_engines_agree_on_every_history(acts: list[Act]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lease")
        real = registry.load("metadata", "embedded").create({"path": path})
        model = fake.create({})
        for act in acts:
            assert _told(real, act) == _told(model, act)
        again = registry.load("metadata", "embedded").create({"path": path})
        assert _told(again, lambda _: None) == _told(model, lambda _: None)


def _same_on_a_server(plug: str, place: str, given_: dict[str, object]) -> None:
    """Compare histories, each in a place of its own on one server."""
    create = registry.load("metadata", plug).create

    @settings(max_examples=25)
    @given(acts=ACTS)
    def agree(acts: list[Act]) -> None:
        mine = place.format(uuid.uuid4().hex)
        name = "schema" if plug == "postgresql" else "prefix"
        real, model = create({**given_, name: mine, "timeout": 10}), fake.create({})
        for act in acts:
            assert _told(real, act) == _told(model, act)

    agree()


@pytest.mark.integration
@pytest.mark.skipif(bool(no_postgresql()), reason=no_postgresql())
def test_postgresql_agrees_on_every_history() -> None:
    with postgresql() as server:
        _same_on_a_server("postgresql", "s{}", {"url": server.url})


@pytest.mark.integration
@pytest.mark.skipif(bool(no_etcd()), reason=no_etcd())
def test_etcd_agrees_on_every_history() -> None:
    with etcd(1) as cluster:
        _same_on_a_server("etcd", "/{}/", {"endpoints": cluster.endpoints})
