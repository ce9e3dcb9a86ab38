"""Faults of checkpoint stores: copies change, a store is gone, a disk is full."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fedsecure.access.kit import read_kit
from fedsecure.backends import Event, Outcome
from fedsecure.daemons.supervisor import run_to_end
from fedsecure.disk import SystemDisk
from fedsecure.drills.evidence import heads_of, vault_of
from fedsecure.drills.scene import BREAK_IN, Scene, at_first_update, released
from fedsecure.errors import FedsecureError
from fedsecure.metadata import Head
from fedsecure.registry import load

IN_PROCESS: Sequence[str] = ("backend=inprocess", "store.replicas=3")
_SMALL = "size=8m"
_VICTIM = "1"
_SPARED = "2"


class _StoreFault:
    """What all of them have: a scene, and a moment in mid-round."""

    def __init__(self) -> None:
        self.scene: Scene | None = None
        self.done = False

    def begin(self, scene: Scene) -> None:
        """Take the scene."""
        self.scene = scene

    def see(self, event: Event) -> None:
        """Strike once, at the first update of the round."""
        if self.scene is not None and not self.done and at_first_update(event):
            self.done = True
            self.strike(self.scene)

    def strike(self, scene: Scene) -> None:
        """Break something."""

    def end(self) -> None:
        """Nothing outlasts it."""

    def missed(self, outcome: Outcome) -> list[str]:
        """Return whether it was struck at all: the invariants say the rest."""
        _ = outcome
        return [] if self.done else [f"nothing broke in round {BREAK_IN}"]


class ChangedCopies(_StoreFault):
    """One bit of every object in one store changes, amid a round and after it."""

    def __init__(self) -> None:
        super().__init__()
        self._flipped = 0

    def strike(self, scene: Scene) -> None:
        """Change what the store holds now."""
        folder = scene.run / "stores" / _VICTIM
        self._flipped = sum(_flip(p) for p in folder.rglob("*") if p.is_file())
        scene.strike(f"one bit changed in each of {self._flipped} objects of {folder}")

    def missed(self, outcome: Outcome) -> list[str]:
        """Return what else: there must have been something to change."""
        out = super().missed(outcome)
        return out if self._flipped else [*out, "the store was empty"]


class LostStore(_StoreFault):
    """One store is gone for good: a file lies where its folder was."""

    def strike(self, scene: Scene) -> None:
        """Remove it."""
        folder = scene.run / "stores" / _VICTIM
        folder.rename(scene.folder / "lost")
        folder.write_bytes(b"")
        scene.strike(f"{folder} is lost")


class FullDisk(_StoreFault):
    """The disk of one store is full to the last byte until the round is released."""

    def begin(self, scene: Scene) -> None:
        """Mount a small disk where the store will be."""
        super().begin(scene)
        folder = self._folder(scene)
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", _SMALL, "tmpfs", str(folder)]
        run_to_end("mount", command, scene.folder / "mount.log")

    def strike(self, scene: Scene) -> None:
        """Fill it."""
        with suppress(OSError), self._filler(scene).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        scene.strike(f"{self._folder(scene)} is full: no space left on device")

    def see(self, event: Event) -> None:
        """Fill, later make room again."""
        super().see(event)
        if self.scene is not None and self.done and released(event):
            self._filler(self.scene).unlink(missing_ok=True)
            self.scene.note("there is room again")

    def end(self) -> None:
        """Copy what the disk holds to where it was mounted, and unmount it."""
        if self.scene is None or not self._folder(self.scene).is_mount():
            return
        folder, kept = self._folder(self.scene), self.scene.folder / "kept"
        self._filler(self.scene).unlink(missing_ok=True)
        shutil.copytree(folder, kept)
        run_to_end("umount", ["umount", str(folder)], self.scene.folder / "mount.log")
        shutil.copytree(kept, folder, dirs_exist_ok=True)

    def _folder(self, scene: Scene) -> Path:
        return scene.run / "stores" / _VICTIM

    def _filler(self, scene: Scene) -> Path:
        return self._folder(scene) / "filler"


class OtherMachine(_StoreFault):
    """One store's copy, taken in mid-run, is read elsewhere by another aggregator.

    The sites' ledgers are compared too: reading a checkpoint gives no budget back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lengths: dict[Path, int] = {}
        self._heads: list[Head] = []

    def strike(self, scene: Scene) -> None:
        """Copy one store, as a backup does, and note how long the ledgers are."""
        shutil.copytree(scene.run / "stores" / _SPARED, scene.folder / "backup")
        settings = {"path": scene.run / "lease"}
        journal = load("metadata", "embedded").create(settings).journal
        self._heads = heads_of(list(journal.entries(scene.name, 0)))
        ledgers = scene.run.glob("sites/*/ledger.jsonl")
        self._lengths = {path: path.stat().st_size for path in ledgers}
        scene.strike(f"store {_SPARED} is copied to another place")

    def missed(self, outcome: Outcome) -> list[str]:
        """Return what the copy does not give back."""
        out = super().missed(outcome)
        if self.scene is None or out:
            return out
        out += [
            f"{path} is shorter than before"
            for path, size in self._lengths.items()
            if path.stat().st_size < size
        ]
        return out + self._unread(self.scene)

    def _unread(self, scene: Scene) -> list[str]:
        kits = sorted(path.parent for path in scene.kits.glob("agg-*/kit.json"))
        kit = read_kit(kits[-1], SystemDisk(), lambda p: p.stat().st_mode)
        store = load("stores", "local").create({"path": scene.folder / "backup"})
        vault, out = vault_of(kit, [("backup", store)]), []
        for head in (head for head in self._heads if head.round < BREAK_IN):
            try:
                vault.verify_release(head)
            except FedsecureError as bad:
                out.append(f"round {head.round} is not in the copy: {bad}")
        return out if self._heads else ["no round was committed before the copy"]


def _flip(path: Path) -> int:
    data = bytearray(path.read_bytes())
    if not data:
        return 0
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return 1
