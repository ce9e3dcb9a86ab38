"""The processes of one member, found by its folder, and signals to all of them."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def processes_of(folder: Path) -> frozenset[int]:
    """Return the processes whose command line or environment names a folder.

    Parameters
    ----------
    folder : Path
        A kit's: its daemon is started with it, and everything below inherits it.
    """
    wanted, found = str(folder).encode(), set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                told = (entry / "cmdline").read_bytes()
                if wanted in told + (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    return frozenset(found)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to every process that is left of `pids`."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
