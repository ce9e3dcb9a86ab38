"""What a disk may hold after power was lost: every prefix, and what was not synced.

The system calls of `SystemDisk` are written down while they are made. At any moment, a
write that no sync followed may be there or not, and so may a name whose folder was not
synced (Pillai et al., OSDI 2014). `states` builds each folder that could be found.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsecure import disk

MOST_DROPPED = 3


@dataclass(frozen=True, slots=True)
class Call:
    """One change, or one sync of what was changed before.

    Attributes
    ----------
    kind : str
        "data", "name", "gone" or "folder"; "sync" of a file, "syncdir" of a folder.
    where : int or Path
        The file of "data" and "sync", by its number; the folder of all others.
    """

    kind: str
    where: int | Path
    name: str = ""
    inode: int = 0
    data: bytes = b""

    @property
    def synced_by(self) -> "tuple[str, int | Path]":
        """What makes it durable."""
        return ("sync" if self.kind == "data" else "syncdir", self.where)


@dataclass
class Calls:
    """What was called below a folder, in order.

    Attributes
    ----------
    open : dict of int to Path
        What each descriptor was opened on, last.
    files : dict of int to int
        Inode -> a number of its file's own: inodes are used again.
    """

    root: Path
    made: list[Call] = field(default_factory=list)
    open: dict[int, Path] = field(default_factory=dict)
    files: dict[int, int] = field(default_factory=dict)

    def note(self, kind: str, where: int | Path, **more: Any) -> None:
        self.made.append(Call(kind, where, **more))

    def pending(self, moment: int) -> list[int]:
        """Return which of the first calls may not be durable yet."""
        done, out = set[tuple[str, int | Path]](), []
        for i in reversed(range(moment)):
            call = self.made[i]
            if call.kind in {"sync", "syncdir"}:
                done.add((call.kind, call.where))
            elif call.synced_by not in done:
                out.append(i)
        return out[::-1]

    def choices(self, moment: int) -> Iterator[frozenset[int]]:
        """Yield what may be lost at a moment: few of the pending, and all of them."""
        pending = self.pending(moment)
        for count in range(min(MOST_DROPPED, len(pending)) + 1):
            yield from map(frozenset, itertools.combinations(pending, count))
        if len(pending) > MOST_DROPPED:
            yield frozenset(pending)

    def build(self, moment: int, lost: frozenset[int], into: Path) -> None:
        """Make the folder that is found when `lost` did not reach the disk."""
        content, names = dict[int, bytes](), {self.root: dict[str, int]()}
        for i, call in enumerate(self.made[:moment]):
            if call.kind == "data":
                data = b"" if i in lost else call.data
                content[int(str(call.where))] = content.get(call.inode, b"") + data
            elif i not in lost and isinstance(call.where, Path):
                self._change(call, call.where, names)
        for folder, files in names.items():
            place = into / folder.relative_to(self.root)
            place.mkdir(parents=True, exist_ok=True)
            for name, inode in files.items():
                (place / name).write_bytes(content.get(inode, b""))

    def _change(
        self, call: Call, folder: Path, names: dict[Path, dict[str, int]]
    ) -> None:
        if folder not in names:  # it was never made, as far as this disk knows
            return
        if call.kind == "name":
            names[folder][call.name] = call.inode
        elif call.kind == "gone":
            names[folder].pop(call.name, None)
        elif call.kind == "folder":
            names[folder / call.name] = {}


@contextmanager
def written_down(root: Path) -> Iterator[Calls]:
    """Write down what `SystemDisk` does below `root`, an empty folder."""
    calls = Calls(root)
    unlink, mkdir = Path.unlink, Path.mkdir

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        there = self.exists()
        unlink(self, missing_ok=missing_ok)
        if there and self.is_relative_to(root):
            calls.note("gone", self.parent, name=self.name)

    def made_folder(self: Path, mode: int = 0o777, **more: Any) -> None:
        there = self.exists()
        mkdir(self, mode, **more)
        if not there and self.is_relative_to(root):
            calls.note("folder", self.parent, name=self.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "os", _System(calls).names())
        patch.setattr(Path, "unlink", unlinked)
        patch.setattr(Path, "mkdir", made_folder)
        yield calls


@contextmanager
def unsynced() -> Iterator[None]:
    """Let syncs do nothing for a while: power does not go again."""
    every = {name: getattr(os, name) for name in dir(os)}
    none = {"fsync": lambda _: None, "fdatasync": lambda _: None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "os", SimpleNamespace(**{**every, **none}))
        yield


class _System:
    """The `os` that the disk is given: it does what it is told, and writes it down."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def names(self) -> SimpleNamespace:
        every = {name: getattr(os, name) for name in dir(os)}
        mine = {"open": self.open, "write": self.write, "link": self.link}
        return SimpleNamespace(
            **{**every, **mine, "fsync": self.sync, "fdatasync": self.sync}
        )

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        made = bool(flags & os.O_CREAT) and not Path(path).exists()
        descriptor = os.open(path, flags, mode)
        self._calls.open[descriptor] = Path(path)
        if made:
            calls = self._calls
            calls.files[os.fstat(descriptor).st_ino] = len(calls.made) + 1
            self._named(Path(path))
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        count, inode = os.write(descriptor, data), self._file(descriptor)
        self._calls.note("data", inode, inode=inode, data=bytes(data[:count]))
        return count

    def sync(self, descriptor: int) -> None:
        path = self._calls.open[descriptor]
        if path.is_dir():
            self._calls.note("syncdir", path)
        else:
            self._calls.note("sync", self._file(descriptor))

    def link(self, old: Path, new: Path) -> None:
        os.link(old, new)
        self._named(new)

    def _file(self, descriptor: int) -> int:
        return self._calls.files[os.fstat(descriptor).st_ino]

    def _named(self, path: Path) -> None:
        inode = self._calls.files[path.stat().st_ino]
        self._calls.note("name", path.parent, name=path.name, inode=inode)
