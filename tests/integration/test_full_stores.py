"""Local checkpoint stores whose disks are full to the last byte, in mid-round.

The rounds are real, the stores lie on small disks: two of three are filled
before each durable step that writes to them. One alone that is full, over real Flower
processes, is the drill ``disk-full``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedsecure.disk import SystemDisk
from fedsecure.errors import NotEnoughReplicas, StorageError
from fedsecure.stores.local import LocalStore
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.fuses import Fuse
from tests.fakes.history import violations
from tests.fakes.smalldisk import SmallDisk, no_small_disk

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(no_small_disk()), reason=no_small_disk()),
]


class OnDisk(LocalStore):
    """A local store that also shows all it holds, as the judge of a run looks at it."""

    @property
    def objects(self) -> dict[str, bytes]:
        return {k: self.get(k, MAX_BYTES) for k in self.keys("")}


def _federation(folders: Sequence[Path]) -> Federation:
    made = Federation(sites=2, rounds=2, private=False)
    made.stores = [OnDisk(folder, SystemDisk()) for folder in folders]  # type: ignore[misc]
    return made


def _undisturbed() -> tuple[list[str], bytes]:
    federation, fuse = Federation(sites=2, rounds=2, private=False), Fuse("agg-1")
    federation.lead("agg-1", fuse)
    return fuse.names, federation.models()["site-1"]


NAMES, MODEL = _undisturbed()
PUTS = [
    number
    for number, name in enumerate(NAMES, 1)
    if name.startswith("put") and name != NAMES[number - 2]  # an object's first copy
]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[SmallDisk]]:
    made = [SmallDisk(tmp_path / f"disk-{i}", 64) for i in range(3)]
    yield made
    for disk in made:
        disk.close()


@pytest.mark.parametrize("step", PUTS)
def test_a_run_without_a_quorum_of_room_stops_by_name_and_goes_on(
    disks: list[SmallDisk], step: int
) -> None:
    federation = _federation([disk.folder / "store" for disk in disks])

    def strike() -> None:
        for disk in disks[1:]:
            disk.fill()

    with pytest.raises(StorageError) as stopped:
        federation.lead("agg-1", Fuse("agg-1", pause=(step, strike)))
    assert isinstance(stopped.value, NotEnoughReplicas)
    assert "No space left on device" in str(stopped.value)
    assert str(disks[1].folder) in str(stopped.value)
    assert "free space on that disk" in str(stopped.value)
    for disk in disks:
        disk.free()
    federation.lead("agg-2")
    assert violations(federation) == []
    assert federation.models()["site-1"] == MODEL


def test_a_run_goes_on_while_one_store_of_three_has_no_room(
    disks: list[SmallDisk],
) -> None:
    federation = _federation([disk.folder / "store" for disk in disks])
    disks[2].fill()
    federation.lead("agg-1")
    assert not federation.stores[2].objects
    assert federation.models()["site-1"] == MODEL
