"""One store of three lies on a disk that the kernel froze: the run ends without it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsecure.checkpoint.inventory import take
from fedsecure.checkpoint.patience import Bounds
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.scrub import scrub
from fedsecure.checkpoint.vault import Vault
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.metadata import Step
from fedsecure.stores import Store
from fedsecure.stores.local import LocalStore
from tests.fakes.checkpoints import judge
from tests.fakes.federation import QUORUM, Federation
from tests.fakes.frozendisk import FrozenDisk, no_frozen_disk
from tests.fakes.fuses import Died, Fuse, Until
from tests.fakes.metadata import engine

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(no_frozen_disk()), reason=no_frozen_disk()),
]
BOUNDS = Bounds(linger=1.0, longest=30.0)
LAST = 30.0  # seconds in which a thread ends, once its disk thaws


class OnDisks(Federation):
    """A federation whose first store lies on a disk of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(rounds=2, private=False)
        self.disk = FrozenDisk(folder / "store-0")
        folders = [self.disk.folder, folder / "store-1", folder / "store-2"]
        self.named: list[tuple[str, Store]] = [
            (f.name, LocalStore(f / "ck", SystemDisk())) for f in folders
        ]

    def replicas(self) -> Replicas:
        return Replicas(self.named, QUORUM, bounds=BOUNDS)

    def vault(self, name: str, fuse: Fuse | None = None) -> Vault:
        _ = fuse
        return Vault(
            self.replicas(),
            name,
            self.signing(name),
            self.box(name),
            {a: self.box(a).public for a in self.aggregators},
            {a: self.signing(a).public for a in self.aggregators},
            self.clock,
        )


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[OnDisks]:
    made = OnDisks(tmp_path)
    yield made
    _thaw(made)
    made.disk.close()


def _left() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "store store-0"]


def _thaw(federation: OnDisks) -> None:
    federation.disk.thaw()
    for thread in _left():
        thread.join(LAST)


def test_a_run_ends_while_a_disk_is_frozen_and_the_scrubber_brings_the_rest(
    federation: OnDisks,
) -> None:
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal update", 2))
    federation.disk.freeze()
    federation.lead("agg-2")
    assert [e.round for e in federation.journal() if e.step == Step.RELEASE] == [1, 2]
    assert len(set(federation.models().values())) == 1
    assert 1 <= len(_left()) <= 2
    _thaw(federation)
    heads = engine(federation.state).journal.head
    before = take(federation.named, judge(federation), heads)
    done = scrub(before, 1e9, SystemClock().now, lambda _: True)
    assert done.mended > 0
    after = take(federation.named, judge(federation), heads)
    assert all(
        after.held[key] == {0, 1, 2}
        for key in after.held
        if key.startswith(("manifest/", "obj/"))
    )


def test_a_start_does_without_a_frozen_disk_and_without_racers_in_it(
    federation: OnDisks,
) -> None:
    federation.disk.freeze()
    federation.replicas().probe("ab" * 32)
    assert len(_left()) == 1
