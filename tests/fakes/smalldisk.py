"""A disk so small that a test can fill it: a tmpfs of its own, ended with the test."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

_BLOCK = bytes(1 << 16)


def no_small_disk() -> str:
    """Return why no small disk can be made; "" if it can."""
    if os.geteuid() != 0:
        return "a small disk is mounted: run it as root"
    return "" if shutil.which("mount") else "no mount: apt-get install mount"


class SmallDisk:
    """A file system of a few MiB at a folder, which is made.

    Parameters
    ----------
    folder : Path
        Where it is mounted; what lay there is hidden meanwhile.
    mebibytes : int
    owner : str
        Of the folder; by default this process's user.
    """

    def __init__(self, folder: Path, mebibytes: int, owner: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        options = f"size={mebibytes}m,mode=0700" + (f",uid={owner}" if owner else "")
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))

    def fill(self) -> None:
        """Take every byte that is left."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(_BLOCK)

    def free(self) -> None:
        """Make room again, as an operator would."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what it held is gone."""
        if self.folder.is_mount():
            _run("umount", "--lazy", str(self.folder))

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
