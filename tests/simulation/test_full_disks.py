"""Every disk of an aggregator fills up at each durable step of a run: nothing is half.

Stores, engine and the aggregator's own ledger write through one fuse, so that each of
their steps is once the first that finds no room.
"""

import pytest

from fedsecure.errors import StorageError
from tests.fakes.federation import Federation
from tests.fakes.fuses import Full, Fuse
from tests.fakes.history import violations


def _steps() -> int:
    federation, fuse = Federation(), Fuse("agg-1")
    federation.lead("agg-1", fuse)
    return len(fuse.names)


STEPS = _steps()


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    federation = Federation()
    federation.lead()
    return federation.models()["site-1"]


@pytest.mark.parametrize("step", range(STEPS))
def test_the_run_stops_by_name_and_goes_on_once_there_is_room(
    step: int, undisturbed: bytes
) -> None:
    federation = Federation()
    try:
        federation.lead("agg-1", Full("agg-1", step))
    except StorageError as full:
        assert "No space left on device" in str(full)  # noqa: PT017
    federation.lead("agg-2")
    assert violations(federation) == []
    assert federation.models()["site-1"] == undisturbed


def test_a_full_disk_before_the_last_step_does_stop_the_run() -> None:
    with pytest.raises(StorageError, match="No space left"):
        Federation().lead("agg-1", Full("agg-1", STEPS - 1))
