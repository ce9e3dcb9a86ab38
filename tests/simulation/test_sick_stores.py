"""One store of three hangs, or holds a copy gone bad: the run goes on to its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsecure.checkpoint.patience import Bounds
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.vault import Vault
from fedsecure.disk import SystemDisk
from fedsecure.metadata import Step
from fedsecure.stores import Store
from fedsecure.stores.local import LocalStore
from tests.fakes.federation import QUORUM, Federation
from tests.fakes.fuses import Died, Fuse, Until
from tests.fakes.hung import HungStore


class OnDisks(Federation):
    """A federation whose stores are folders, any of which may hang."""

    def __init__(self, folder: Path, rounds: int) -> None:
        super().__init__(rounds=rounds, private=False)
        self.folders = [folder / str(number) for number in range(3)]
        self.disks_of = [HungStore(LocalStore(f, SystemDisk())) for f in self.folders]
        for store in self.disks_of:
            store.hangs = False

    def vault(self, name: str, fuse: Fuse | None = None) -> Vault:
        _ = fuse
        stores: list[tuple[str, Store]] = [
            (f"store-{n}", store) for n, store in enumerate(self.disks_of)
        ]
        return Vault(
            Replicas(stores, QUORUM, bounds=Bounds(0.2, 30.0)),
            name,
            self.signing(name),
            self.box(name),
            {a: self.box(a).public for a in self.aggregators},
            {a: self.signing(a).public for a in self.aggregators},
            self.clock,
        )


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[OnDisks]:
    made = OnDisks(tmp_path, rounds=2)
    yield made
    for store in made.disks_of:
        store.come_back()


def _ended(federation: OnDisks) -> bool:
    released = [e.round for e in federation.journal() if e.step == Step.RELEASE]
    return released == [1, 2] and len(set(federation.models().values())) == 1


@pytest.mark.parametrize("which", range(3))
def test_a_run_ends_while_a_store_hangs(federation: OnDisks, which: int) -> None:
    federation.disks_of[which].hangs = True
    federation.lead()
    assert _ended(federation)
    assert federation.disks_of[which].asked <= 2  # threads that are left behind


@pytest.mark.parametrize("which", range(3))
def test_a_successor_ends_a_run_while_a_store_hangs(
    federation: OnDisks, which: int
) -> None:
    with pytest.raises(Died):
        federation.lead("agg-1", Until("agg-1", "journal update", 2))
    federation.disks_of[which].hangs = True
    federation.lead("agg-2")
    assert _ended(federation)


def _dies_before_its_row(folder: Path) -> Fuse:
    """Return a fuse: a leader dies with an update on the stores, before its row."""
    trial, counted = OnDisks(folder, rounds=1), Fuse("agg-1")
    trial.lead("agg-1", counted)

    def die() -> None:
        raise Died("agg-1")

    at = counted.names.index("journal update") + 1
    return Fuse("agg-1", pause=(at, die))


@pytest.mark.parametrize("which", range(3))
def test_a_copy_that_no_row_names_and_went_bad_stops_nobody(
    federation: OnDisks, tmp_path: Path, which: int
) -> None:
    with pytest.raises(Died):
        federation.lead("agg-1", _dies_before_its_row(tmp_path / "trial"))
    copies = [next((f / "update").iterdir()) for f in federation.folders]
    for number, copy in enumerate(copies):
        data = bytearray(copy.read_bytes())
        copy.unlink()
        if number == which:
            data[-1] ^= 1
            copy.write_bytes(data)
    federation.lead("agg-2")
    assert _ended(federation)
