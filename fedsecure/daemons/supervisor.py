"""Children: start, watch, restart, end by pid, with everything they started.

The only file that starts processes. A dead child is reaped at once: Flower's own
watchers take a zombie for alive (FLOWER.md section 7). What a child started is found by
a mark in its environment: a SuperLink starts its SuperExec in a session of its own, and
once the SuperLink is dead, the SuperExec and the ServerApp are nobody's descendants any
more, and go on.
"""

import contextlib
import ctypes
import logging
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedsecure.errors import ProcessFailed

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl  # looked up before any fork
_GRACE = 5.0
_TRIES = 5
_LOOKS = 20
_MOMENT = 0.005
_PF_KTHREAD = 0x00200000
_FAMILY = "FEDSECURE_FAMILY"
_NURSERY = ThreadPoolExecutor(1, thread_name_prefix="children")
"""Starts all children: the kernel ends them with the *thread* that started them."""


class Child:
    """One process this one started; it does not outlive it.

    Parameters
    ----------
    name : str
        For messages.
    command : sequence of str
    environment : mapping
        All of it, less the mark of the family.
    log_path : Path
        Where its output goes, appended.
    descriptors : sequence of int
        File descriptors it inherits.

    Raises
    ------
    ProcessFailed
        The program cannot be started.
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
        # A child's mark begins with its parent's: who ends a daemon ends all below it.
        self._mark = f"{os.environ.get(_FAMILY, '')}/{secrets.token_hex(8)}"
        marked = {**environment, _FAMILY: self._mark}
        log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._process = _NURSERY.submit(
                _start, list(command), marked, log_path, tuple(descriptors)
            ).result()
        except OSError as bad:
            raise ProcessFailed(f"{name} cannot be started: {bad}") from bad

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Return the exit status, or None while it runs.

        One that ended is reaped, and what it had started is ended with it.
        """
        if self._process.returncode is None and self._process.poll() is not None:
            _end_family(self._mark)
        return self._process.returncode

    def end(self, grace: float = _GRACE) -> None:
        """End it and all it started: SIGTERM, then SIGKILL after `grace` seconds."""
        if self.ended() is None:
            self._process.terminate()
            _wait_gone([self.pid], grace)
        self.kill()

    def kill(self) -> list[int]:
        """SIGKILL it and all it started, at once, as a host that is lost would.

        Returns
        -------
        list of int
            Process ids that were killed; none of them is left.
        """
        pids = set() if self._process.returncode is not None else {self.pid}
        pids |= set(_carrying(self._mark))
        self._process.kill()  # a process may hide its environment
        pids |= _end_family(self._mark)
        self._process.wait()
        return sorted(pids)


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below `pid`, parents first."""
    children: dict[int, list[int]] = {}
    for found in _processes():
        with contextlib.suppress(OSError, IndexError):
            children.setdefault(int(_stat(found)[1]), []).append(found)
    out, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        out += below
        queue += below
    return out


def named(pid: int, word: str) -> list[int]:
    """Return the descendants of `pid` whose command line holds `word`."""
    out = []
    for found in descendants(pid):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{found}/cmdline").read_bytes().decode(errors="replace")
            if word in line:
                out.append(found)
    return out


class Follower:
    """A process that others start, found by its name, until it is proved to have ended.

    A process loses its name some time before it has ended, and one whose parent died is
    found no more and may live on: neither is proof.

    Parameters
    ----------
    find : callable
        Returns the ids of the processes that have the name now.
    """

    def __init__(self, find: Callable[[], list[int]]) -> None:
        self._find = find
        self._named: list[int] = []
        self._seen = False
        self.left: list[int] = []
        """Processes found, now or before, that have not ended."""

    @property
    def gone(self) -> bool:
        """Whether it was there, and is not found any more."""
        return self._seen and not self._named

    def look(self) -> bool:
        """Look again; return True once, when the last one found has ended."""
        self._named = self._find()
        self._seen = self._seen or bool(self._named)
        before = self.left
        self.left = self._named or [p for p in before if not wait_for_end([p], 0.0)]
        return bool(before) and not self.left


class Backoff:
    """How long to wait before a child is started again: doubling, bounded.

    Parameters
    ----------
    first, most : float
        Shortest and longest wait, seconds.
    now : callable
        Returns seconds that only rise.
    """

    def __init__(
        self,
        first: float = 0.5,
        most: float = 20.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._most = most
        self._now = now
        self._next = first
        self._started = now()

    def wait(self) -> float:
        """Return the seconds to wait; a child that ran for long starts over."""
        if self._now() - self._started > 3 * self._most:
            self._next = self._first
        delay, self._next = self._next, min(self._next * 2, self._most)
        self._started = self._now()
        return delay

    def due(self) -> float:
        """Return when the child may be started again; for `reached`."""
        return self._now() + self.wait()

    def reached(self, moment: float) -> bool:
        """Return whether a moment of `due` has come."""
        return self._now() >= moment


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


def wait_for_end(pids: Sequence[int], seconds: float) -> bool:
    """Wait until one of some processes has ended, reaped or not, or for `seconds`.

    Returns
    -------
    bool
        Whether one has; at once, not at the next look.
    """
    watch, opened = select.poll(), []
    try:
        for pid in pids:
            try:
                opened.append(os.pidfd_open(pid))
            except OSError:
                return True
            watch.register(opened[-1], select.POLLIN)
        return bool(watch.poll(1000 * max(seconds, 0.0)))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def run_to_end(
    name: str, command: Sequence[str], log_path: Path, seconds: float = 30.0
) -> None:
    """Run a program that ends by itself.

    Raises
    ------
    ProcessFailed
        It failed, or did not end in time; the message says where its output is.
    """
    child = Child(name, command, dict(os.environ), log_path)
    _wait_gone([child.pid], seconds)
    status = child.ended()
    if status is None:
        child.kill()
    if status != 0:
        how = "did not end" if status is None else f"ended with status {status}"
        raise ProcessFailed(f"{name} {how}; see {log_path}")


def _start(
    command: list[str],
    environment: dict[str, str],
    log_path: Path,
    descriptors: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    with log_path.open("ab") as out:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Only system calls, found before the fork: no lock another thread may hold.
            preexec_fn=die_with_parent,  # noqa: PLW1509
            pass_fds=descriptors,
        )


def _end_family(mark: str) -> set[int]:
    """SIGKILL all that carry a mark until none is left; return who they were."""
    killed: set[int] = set()
    for _ in range(_TRIES):
        found = _carrying(mark)  # again: one may have started another meanwhile
        if not found:
            return killed
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait_gone(found, _GRACE)
        killed |= set(found)
    log.error("processes %s do not end by SIGKILL; see /proc/PID/stack", found)
    return killed


def _carrying(mark: str) -> list[int]:
    """Return the living processes with a mark."""
    own = f"{_FAMILY}={mark}/".encode()
    out, left = [], _processes()
    for _ in range(_LOOKS):
        found = {pid: _environment(pid) for pid in left}
        for pid, entries in found.items():
            if any((entry + b"/").startswith(own) for entry in entries):
                out.append(pid)
        # Within `execve` a process shows no environment for a moment.
        left = [pid for pid, entries in found.items() if entries == [b""]]
        left = [pid for pid in left if _has_memory(pid)]
        if not left:
            break
        time.sleep(_MOMENT)
    return out


def _environment(pid: int) -> list[bytes]:
    """Return the environment a process was started with; [] if it may not be read."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _has_memory(pid: int) -> bool:
    """Return whether this is a process as we know it: no zombie, no kernel thread."""
    with contextlib.suppress(OSError, IndexError):
        fields = _stat(pid)
        return fields[0] not in "ZX" and not int(fields[6]) & _PF_KTHREAD
    return False


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third, the state, on."""
    text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    return text.rsplit(")", 1)[1].split()


def _wait_gone(pids: Sequence[int], seconds: float) -> None:
    """Wait until no process of `pids` runs, or for `seconds`; reaps nothing."""
    ends = time.monotonic() + seconds
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue  # gone
        try:
            watch = select.poll()
            watch.register(descriptor, select.POLLIN)
            watch.poll(1000 * max(ends - time.monotonic(), 0.0))
        finally:
            os.close(descriptor)


def _processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
