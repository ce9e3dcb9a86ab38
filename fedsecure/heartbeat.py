"""A lock whose holder must show that it lives; one that hangs is ended.

The kernel frees a flock the moment its holder dies. A holder that hangs keeps it:
watchers see its heartbeat stand still on their own monotonic clock and SIGKILL it
through a pidfd (RESILIENCE.md section 5). No time of day is compared, and no clock of
one process with that of another.
"""

import contextlib
import os
import select
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.disk import Disk, Lock, LockHeld
from fedsecure.errors import NotFound, StorageError

_BEAT = struct.Struct("<qqQ")  # process id, its start in clock ticks, counter


@dataclass(frozen=True, slots=True)
class _Look:
    """The heartbeat seen last, when, and for how long it has stood still; seconds."""

    beat: bytes = b""
    when: float = 0.0
    still: float = 0.0


class Heartbeat:
    """One member's hold on a folder's lock. Not for several threads at once.

    A holder that hangs in the moment between lock and first heartbeat is not known by
    its process id, and is left alone.

    Parameters
    ----------
    folder : Path
        Shared by the members; on one machine, in one process id namespace.
    """

    def __init__(self, folder: Path, disk: Disk, clock: Clock) -> None:
        self._folder = folder
        self._disk = disk
        self._clock = clock
        self._lock: Lock | None = None
        self._beats = 0
        self._look = _Look()

    @property
    def held(self) -> bool:
        """Whether this process holds the lock; a forked child does not."""
        return self._lock is not None and self._lock.held

    def take(self) -> bool:
        """Take the lock and beat once; False if somebody else holds it.

        Raises
        ------
        StorageError
            Could not ask, or could not beat; not held.
        """
        if not self._try_lock():
            return False
        try:
            self.beat()
        except BaseException:
            self.free()
            raise
        return True

    def beat(self) -> None:
        """Show that the holder lives.

        Raises
        ------
        StorageError
            The heartbeat could not be written.
        """
        self._beats += 1
        pid = os.getpid()
        temporary = self._folder / ".heartbeat"
        try:
            # Not durable on purpose: a beat of a machine that went down says nothing.
            temporary.write_bytes(_BEAT.pack(pid, started_at(pid), self._beats))
            temporary.replace(self._folder / "heartbeat")
        except OSError as failed:
            raise StorageError(f"could not write {temporary}: {failed}") from failed

    def free(self) -> None:
        """Give the lock up; idempotent."""
        if self._lock is not None and self._lock.held:
            # First the beat: it must never name a live process that does not hold.
            with contextlib.suppress(OSError):
                (self._folder / "heartbeat").unlink()
            self._lock.release()
        self._lock = None

    def watch(self, ttl: float) -> bool:
        """Return whether somebody holds the lock; end a holder that hangs.

        Parameters
        ----------
        ttl : float
            Seconds of silence after which the holder is ended.

        Raises
        ------
        StorageError
            Could not ask.
        """
        if self.held:
            return True
        if self._try_lock():
            self.free()
            self._look = _Look()
            return False
        self._see(self._last_beat(), ttl)
        return True

    def _see(self, beat: bytes, ttl: float) -> None:
        now, last = self._clock.now(), self._look
        if beat != last.beat or len(beat) != _BEAT.size:
            self._look = _Look(beat, now)
            return
        # One look counts for a quarter of the ttl at most: a watcher that was stopped
        # itself, or a machine that slept, has not seen the holder hang. A clock that
        # went back counts nothing: it must not take away what was seen.
        still = last.still + min(max(now - last.when, 0.0), ttl / 4)
        self._look = _Look(beat, now, still)
        if still > ttl:
            pid, started, _ = _BEAT.unpack(beat)
            end_process(pid, started)
            self._look = _Look()

    def _try_lock(self) -> bool:
        try:
            self._lock = self._disk.lock(self._folder / "lease.lock")
        except LockHeld:
            return False
        return True

    def _last_beat(self) -> bytes:
        try:
            return self._disk.read(self._folder / "heartbeat", _BEAT.size)
        except NotFound:
            return b""


def started_at(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(stat.rsplit(")", 1)[1].split()[19])


def end_process(pid: int, started: int) -> bool:
    """SIGKILL the process that has this id and start time; wait until it is gone.

    Never this process itself, and never one that only took over the number.

    Returns
    -------
    bool
        Whether it was sent the signal.
    """
    if pid == os.getpid() or not started:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # After the descriptor is open, the number cannot pass on unnoticed.
        if started_at(pid) != started:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], 1.0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
