"""A site's shelf on a real disk without room: nothing is paid, or no more than bounded.

Both halves of the rounds are real; the shelf lies on a small disk of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fedsecure.disk import SystemDisk
from fedsecure.privacy.budget import ATTEMPTS
from fedsecure.stores.local import LocalStore
from tests.fakes.federation import Federation
from tests.fakes.smalldisk import SmallDisk, no_small_disk
from tests.fakes.store import FlakyStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(no_small_disk()), reason=no_small_disk()),
]
ME = "site-3"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "shelf", 16)
    yield disk
    disk.close()


class OnDisk(Federation):
    """A federation in which one site's shelf lies on a disk."""

    def __init__(self, disk: SmallDisk) -> None:
        super().__init__(rounds=3, min_contributors=2, deadline=30.0)
        self.sites[ME].max_epsilon = 100.0
        store = LocalStore(disk.folder, SystemDisk())
        self.sites[ME].store = cast("FlakyStore", store)

    def paid(self) -> list[int]:
        return [self.sites[ME].reservations(n) for n in (1, 2, 3)]

    def rejected(self) -> list[object]:
        notes = self.notes.events
        return [f["code"] for e, f in notes if e == "rejected" and f["site"] == ME]


def test_a_disk_that_is_full_costs_nothing_and_says_how_much_is_missing(
    small: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    federation = OnDisk(small)
    (small.folder / "others").write_bytes(bytes(13 << 20))
    federation.lead()
    assert federation.paid() == [0, 0, 0]
    assert federation.rejected() == ["no_room"] * 3
    assert federation.sites[ME].deaths == 0
    assert "bytes are free on the disk of the shelf" in caplog.text


def test_a_disk_that_fills_up_during_training_costs_the_rounds_and_three(
    small: SmallDisk,
) -> None:
    federation = OnDisk(small)
    site = federation.sites[ME]
    site.trainer.before = lambda task: small.fill() if task.train else None
    die = site.die

    def freed() -> None:  # whoever filled it goes, and comes back with the next pass
        small.free()
        die()

    site.die = freed  # type: ignore[method-assign]
    federation.lead()
    assert federation.paid() == [ATTEMPTS, 1, 1]
    assert federation.rejected() == ["attempts"] * 3
