"""Children: start, watch, restart, end by pid, with everything they started.

The only file that starts processes. A dead child is reaped at once: Flower's own
watchers take a zombie for alive (FLOWER.md section 7).
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsecure.errors import ProcessFailed

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_GRACE = 5.0


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Child:
    """One process this one started; it does not outlive it.

    Start children from a thread that lives as long as they should: the kernel ends
    them with the thread that started them.

    Parameters
    ----------
    name : str
        For messages.
    command : sequence of str
    environment : mapping
        All of it.
    log_path : Path
        Where its output goes, appended.
    descriptors : sequence of int
        File descriptors it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as out:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads touch libc here
                pass_fds=tuple(descriptors),
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Reap; return the exit status, or None while it runs."""
        return self._process.poll()

    def end(self, grace: float = _GRACE) -> None:
        """End it and all it started: SIGTERM, then SIGKILL after `grace` seconds."""
        family = descendants(self.pid)
        if self.ended() is None:
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        kill_all([*descendants(self.pid), *family, self.pid])
        self._process.wait()

    def kill(self) -> list[int]:
        """SIGKILL it and all it started, at once, as a host that is lost would.

        Returns
        -------
        list of int
            Process ids that were killed.
        """
        family = [self.pid, *descendants(self.pid)]
        kill_all(family)
        self._process.wait()
        return family


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below `pid`, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text(encoding="ascii", errors="replace")
                parent = int(stat.rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL every process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def named(pid: int, word: str) -> list[int]:
    """Return the descendants of `pid` whose command line holds `word`."""
    out = []
    for found in descendants(pid):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{found}/cmdline").read_bytes().decode(errors="replace")
            if word in line:
                out.append(found)
    return out


class Backoff:
    """How long to wait before a child is started again: doubling, bounded."""

    def __init__(self, first: float = 0.5, most: float = 20.0) -> None:
        self._first = first
        self._most = most
        self._next = first
        self._started = time.monotonic()

    def wait(self) -> float:
        """Return the seconds to wait; a child that ran for long starts over."""
        if time.monotonic() - self._started > 3 * self._most:
            self._next = self._first
        delay, self._next = self._next, min(self._next * 2, self._most)
        self._started = time.monotonic()
        return delay

    def due(self) -> float:
        """Return when the child may be started again; for `reached`."""
        return time.monotonic() + self.wait()

    @staticmethod
    def reached(moment: float) -> bool:
        """Return whether a moment of `due` has come."""
        return time.monotonic() >= moment


def require_running(child: Child, log_path: Path) -> None:
    """Return only while a child runs.

    Raises
    ------
    ProcessFailed
        It ended; the message has its status and where its output is.
    """
    status = child.ended()
    if status is not None:
        raise ProcessFailed(f"{child.name} ended with status {status}; see {log_path}")
