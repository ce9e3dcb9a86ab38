"""An operator says that the clock is right: a line, and the daemon must be down."""

from pathlib import Path

import pytest

from fedsecure.assembly.clockset import accept_clock
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import KitError, StorageError
from fedsecure.ledger import Ledger, verify_ledger
from fedsecure.witness import CLOCK_SET
from tests.fakes.clock import FakeClock
from tests.fakes.kits import kit, make_kits


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    return make_kits(tmp_path, 1)


def test_it_is_a_line_that_names_the_newest_time(kits: Path) -> None:
    held = kit(kits, "site-1")
    ahead = FakeClock()
    ahead.jump_wall(20 * 365 * 86_400)
    path = held.state / "ledger.jsonl"
    Ledger.open(path, "site-1", held.signing, SystemDisk(), ahead).close()
    time = accept_clock(kits / "site-1", SystemClock())
    last = verify_ledger(path, SystemDisk(), held.signing.public)[-1]
    assert (last.action, last.time) == (CLOCK_SET, time)
    assert last.detail == {"newest": ahead.wall().isoformat(timespec="milliseconds")}


def test_a_running_daemon_is_not_written_past(kits: Path) -> None:
    held = kit(kits, "site-1")
    path = held.state / "ledger.jsonl"
    ledger = Ledger.open(path, "site-1", held.signing, SystemDisk(), SystemClock())
    with pytest.raises(StorageError):
        accept_clock(kits / "site-1", SystemClock())
    ledger.close()


def test_an_aggregator_has_no_policy_to_end(kits: Path) -> None:
    with pytest.raises(KitError):
        accept_clock(kits / "agg-1", SystemClock())
