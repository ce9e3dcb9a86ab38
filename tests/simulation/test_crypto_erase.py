"""An update that a store kept while it was away opens for nobody, whoever dies when."""

import random
from collections.abc import Iterator

import pytest

from fedsecure.checkpoint.rack import ROUND
from fedsecure.checkpoint.seal import from_bytes
from fedsecure.errors import FedsecureError
from fedsecure.metadata import Step
from fedsecure.update import RoundId
from tests.fakes import metadata
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations

RUN_STEPS = 74
STEPS = random.Random(11).sample(range(1, RUN_STEPS), 24)  # noqa: S311 - no secret


def _hoard(federation: Federation) -> dict[str, bytes]:
    """Make a store keep what it is told to delete, and return what it kept."""
    kept: dict[str, bytes] = {}
    store = federation.stores[0]
    plain = store.put

    def put(key: str, value: bytes) -> None:
        plain(key, value)
        if key.startswith("update/"):
            kept[key] = bytes(value)

    store.put = put  # type: ignore[method-assign]
    return kept


def _keys(federation: Federation) -> Iterator[tuple[int, bytes]]:
    for entry in federation.journal():
        if entry.step == Step.KEY:
            yield entry.round, entry.detail


def _readable(federation: Federation, name: str) -> bool:
    """Return whether an aggregator, with all that is durable, can read an update."""
    vault = federation.vault("agg-1")
    run = federation.terms.run
    keys = [
        vault.read_key(row, RoundId(run, number)) for number, row in _keys(federation)
    ]
    for key in (None, *keys):
        try:
            vault.read(name, 1 << 30, key)
        except FedsecureError:
            continue
        return True
    return False


def test_while_a_round_is_open_its_updates_can_be_read() -> None:
    federation, seen = Federation(), 0
    kept = _hoard(federation)
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=16))
    for name in kept:
        assert _readable(federation, name)
        seen += 1
    assert seen


def test_a_copy_left_behind_is_under_its_rounds_key_alone() -> None:
    federation = Federation()
    kept = _hoard(federation)
    federation.lead()
    assert len(kept) == 6
    assert {frozenset(from_bytes(data).wraps) for data in kept.values()} == {
        frozenset({ROUND})
    }


@pytest.mark.parametrize("step", sorted(STEPS))
def test_whenever_a_leader_dies_a_round_is_whole_or_erased(step: int) -> None:
    federation = Federation()
    kept = _hoard(federation)
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=step))
    ended = {e.round for e in federation.journal() if e.step == Step.PUBLISH}
    opened = {e.round for e in federation.journal() if e.step == Step.OPEN}
    assert {number for number, _ in _keys(federation)} == opened - ended
    federation.lead("agg-2")
    assert violations(federation) == []
    assert list(_keys(federation)) == []
    for name, data in kept.items():
        federation.stores[0].objects[name] = data  # the store comes back with it
        assert not _readable(federation, name)


def test_a_key_that_outlives_its_round_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "ENDS", ())
    federation = Federation()
    kept = _hoard(federation)
    federation.lead()
    federation.stores[0].objects.update(kept)
    assert all(_readable(federation, name) for name in kept)
