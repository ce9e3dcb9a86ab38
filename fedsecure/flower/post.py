"""Letters to sites and their answers, over a Flower grid that loses some.

One thread a site, because a stalled upload blocks a pull for minutes (FLOWER.md section
6, rule 2). An error reply or a node that went away means "ask again", never "drop the
site": soon at first, then at growing distances, because a letter may be a whole model
and a site that fails at once would be sent it without end.

At most `hands` answers are held at a time, whatever the number of sites: the others
wait where they are, and one letter is written at a time, so memory does not grow with
the cohort. Uploads that stall do not silence the other sites: another hand opens every
few seconds in which nothing moved, and only then may more answers come (`hands`).
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flwr.serverapp import Grid

from fedsecure.clock import SystemClock
from fedsecure.errors import VerificationError
from fedsecure.flower import records
from fedsecure.flower.hands import Hands

__all__ = ["Answer", "Directory", "Finder", "Grid", "Round", "Sent", "Timing"]

log = logging.getLogger(__name__)

Directory = Callable[[], Mapping[str, int]]
"""Returns the node id of every site that is online now."""
Finder = Callable[[Grid], Directory]
"""Returns the directory of a grid."""
Sent = Callable[[str, str, int], None]
"""Told of each letter that lies at Flower: its group, the site, bytes."""


def untold(group: str, site: str, size: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes that came from the node of a site; nothing in them is verified."""

    site: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Timing:
    """How often the grid is asked.

    Attributes
    ----------
    poll : float
        Seconds between two pulls of an open message.
    retry : float
        Seconds before a lost message is sent again, twice; then each time twice as
        long.
    longest : float
        Seconds that no message waits longer for.
    stall : float
        Seconds without a free hand after which a pull that blocks is passed.
    """

    poll: float = 0.05
    retry: float = 0.5
    longest: float = 10.0
    stall: float = 5.0

    def pause(self, failed: int) -> float:
        """Return seconds to wait after a site's letter failed `failed` times in a row.

        The first are mishaps: a node that went away, a leader that changed. Whoever
        fails again and again does it with every letter, and each may be 100 MB.
        """
        doubled = self.retry * 2.0 ** min(max(failed - 2, 0), 32)
        return max(self.retry, min(doubled, self.longest))


class Round:
    """One exchange: a letter to each site, answers as they come, letters again.

    Use as a context manager: leaving it ends its threads.

    Parameters
    ----------
    sent : callable
        What it raises of a full disk is passed over: the letter has left.

    Attributes
    ----------
    sent_bytes, asked : dict of str to int
        By site: bytes of its letters, and how often the caller asked it.
    """

    def __init__(
        self,
        grid: Grid,
        directory: Directory,
        group: str,
        max_bytes: int,
        timing: Timing,
        hands: int,
        sent: Sent = untold,
    ) -> None:
        self._sent = sent
        self._grid = grid
        self._directory = directory
        self._group = group
        self._max_bytes = max_bytes
        self._timing = timing
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._hands = Hands(hands, timing.stall, SystemClock())
        self._pen = threading.Lock()
        self._stop = threading.Event()
        self._letters: dict[str, Callable[[], bytes]] = {}
        self._wake: dict[str, threading.Event] = {}
        self._failed: dict[str, int] = {}  # in a row
        self._threads: list[threading.Thread] = []
        self.sent_bytes: dict[str, int] = {}
        self.asked: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for event in self._wake.values():
            event.set()

    def ask(self, site: str, letter: Callable[[], bytes]) -> None:
        """Send a letter, now or, if the site was asked before, again."""
        self._letters[site] = letter
        self.asked[site] = self.asked.get(site, 0) + 1
        if site in self._wake:
            self._wake[site].set()
            return
        self._wake[site] = threading.Event()
        thread = threading.Thread(
            target=self._serve, args=(site,), name=f"post-{site}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    @property
    def ended(self) -> bool:
        """Whether no thread is left: one that Flower blocks outlives the exchange."""
        return not any(thread.is_alive() for thread in self._threads)

    def next(self, timeout: float) -> Answer | None:
        """Return the next answer, or None after `timeout` seconds.

        The caller says `done` when it holds the bytes no longer.
        """
        try:
            return self._answers.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def done(self) -> None:
        """Let another answer be fetched."""
        self._hands.give()

    def _serve(self, site: str) -> None:
        while not self._stop.is_set():
            try:
                failure = self._converse(site)
            except Exception as bad:  # noqa: BLE001
                # The edge to Flower: it retries for ever inside or raises anything.
                said = " ".join(f"{type(bad).__name__}: {bad}".split())
                failure = f"no answer through Flower ({said})"
            if failure:
                self._fail(site, failure)

    def _fail(self, site: str, failure: str) -> None:
        failed = self._failed[site] = self._failed.get(site, 0) + 1
        wait = self._timing.pause(failed)
        text = "site %s: %s; its letter goes again in %.1f s (failures in a row: %d)"
        log.warning(text, site, failure, wait, failed)
        self._stop.wait(wait)

    def _converse(self, site: str) -> str:
        """Send a letter and wait for its answer; return why none came, or ""."""
        node = self._directory().get(site)
        if node is None:
            self._stop.wait(self._timing.retry)
            return ""
        failure = self._await_answer(site, self._send(site, node))
        if not failure:
            self._failed.pop(site, None)
            self._wake[site].wait()
            self._wake[site].clear()
        return failure

    def _send(self, site: str, node: int) -> list[str]:
        # A first letter holds the model: all of a cohort's at once would not fit.
        with self._pen:
            data = self._letters[site]()
            letter = records.message(data, node, self._group)
            ids = list(self._grid.push_messages([letter]))
            self.sent_bytes[site] = self.sent_bytes.get(site, 0) + len(data)
        with suppress(OSError):
            self._sent(self._group, site, len(data))
        return ids

    def _await_answer(self, site: str, ids: list[str]) -> str:
        while not self._stop.is_set():
            if not self._hands.take(site, self._timing.poll):
                continue
            try:
                found = self._pull(site, ids)
            finally:
                self._hands.drop(site)
            if found is not None:
                return found
            self._stop.wait(self._timing.poll)
        return ""

    def _pull(self, site: str, ids: list[str]) -> str | None:
        """Return "" for an answer, why an error reply is one, None for nothing yet."""
        for received in self._grid.pull_messages(ids):
            try:
                data = records.read(received, self._max_bytes)
            except VerificationError as bad:
                return str(bad)
            self._hands.fill(site)
            self._answers.put(Answer(site, data))
            return ""
        return None
