"""What happens in a federation, as lines that a console, a report or a test reads."""

import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from fedsecure.clock import Clock
from fedsecure.disk import no_room
from fedsecure.trainer import JSON

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Told of everything worth seeing; never asked, never waited for."""

    def note(self, event: str, fields: Mapping[str, JSON]) -> None:
        """Take note of an event; never raises into a round."""
        ...


class JsonLines:
    """One JSON object a line, appended; each with the monotonic and the UTC time.

    A line that finds no room is lost, and a warning says so once; another says that
    lines are written again, and how many are missing.

    Parameters
    ----------
    path : Path
        The file; made when missing.
    source : str
        Who sees it: the aggregator's name.
    clock : Clock
    show : callable
        Told of each line as well.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        clock: Clock,
        show: Callable[[Mapping[str, JSON]], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._show = show
        self._source = source
        self._clock = clock
        self._turn = threading.Lock()
        self._missing = 0
        path.parent.mkdir(parents=True, exist_ok=True)

    def note(self, event: str, fields: Mapping[str, JSON]) -> None:
        """Append one line; one write, so that readers see whole lines.

        Threads take turns, so that lines stand in the order of their times.
        """
        with self._turn:
            line: dict[str, JSON] = {
                "event": event,
                "source": self._source,
                "now": self._clock.now(),
                "time": self._clock.wall().isoformat(timespec="milliseconds"),
                **fields,
            }
            self._append((json.dumps(line, separators=(",", ":")) + "\n").encode())
            self._show(line)

    def _append(self, data: bytes) -> None:
        """Write a line whole or not at all: a full disk stops nobody's round."""
        try:
            _append(self._path, data)
        except OSError as failed:
            if not self._missing:
                full = no_room(self._path) if failed.errno == errno.ENOSPC else ""
                log.warning("events are lost: %s: %s%s", self._path, failed, full)
            self._missing += 1
        else:
            if self._missing:
                text = "events are written again: %s: %d are missing"
                log.warning(text, self._path, self._missing)
            self._missing = 0


def _append(path: Path, data: bytes) -> None:
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            data = b"\n" + data  # a power cut tore the last line: only that one is lost
        if file.write(data) != len(data):
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_lines(path: Path) -> list[dict[str, JSON]]:
    """Return the events of a file; lines that a power cut tore are left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [event for line in lines[:-1] if (event := _event(line)) is not None]


def _event(line: str) -> dict[str, JSON] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
