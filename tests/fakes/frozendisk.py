"""A disk that hangs for real: a file system of its own, frozen by the kernel.

Reads go on; whoever writes stands still in the kernel, killed or not, until it thaws.
"""

import os
import shutil
import subprocess
from pathlib import Path


def no_frozen_disk() -> str:
    """Return why no disk can be frozen; "" if one can."""
    if os.geteuid() != 0:
        return "a file system is mounted and frozen: run it as root"
    missing = [t for t in ("mkfs.ext4", "mount", "fsfreeze") if not shutil.which(t)]
    if missing:
        return f"no {', '.join(missing)}: apt-get install e2fsprogs mount util-linux"
    return "" if Path("/dev/loop-control").exists() else "no loop devices"


class FrozenDisk:
    """An ext4 of a few MiB at a folder, which is made; not frozen yet.

    Parameters
    ----------
    folder : Path
    mebibytes : int
    """

    def __init__(self, folder: Path, mebibytes: int = 32) -> None:
        folder.mkdir(parents=True)
        self.folder, self._frozen = folder, False
        self._image = folder.with_suffix(".img")
        with self._image.open("wb") as file:
            file.truncate(mebibytes << 20)
        _run("mkfs.ext4", "-q", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(folder))

    def freeze(self) -> None:
        """Let every write hang."""
        _run("fsfreeze", "-f", str(self.folder))
        self._frozen = True

    def thaw(self) -> None:
        """Let the writes go on; idempotent."""
        if self._frozen:
            _run("fsfreeze", "-u", str(self.folder))
            self._frozen = False

    def close(self) -> None:
        """Thaw and unmount it; what it held is gone."""
        self.thaw()
        if self.folder.is_mount():
            _run("umount", "--lazy", str(self.folder))
        self._image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)
