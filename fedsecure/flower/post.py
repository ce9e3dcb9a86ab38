"""Letters to sites and their answers, over a Flower grid that loses some.

One thread a site, because a stalled upload blocks a pull for minutes (FLOWER.md section
6, rule 2). An error reply or a node that went away means "ask again", never "drop the
site". At most `hands` answers are held at a time, whatever the number of sites: the
others wait where they are, and one letter is written at a time, so memory does not
grow with the cohort.
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

from fedsecure.errors import VerificationError
from fedsecure.flower import records

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
        Seconds before a lost message is sent again.
    """

    poll: float = 0.05
    retry: float = 0.5


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
        self._hands = threading.Semaphore(hands)
        self._pen = threading.Lock()
        self._stop = threading.Event()
        self._letters: dict[str, Callable[[], bytes]] = {}
        self._wake: dict[str, threading.Event] = {}
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
        name = f"post-{site}"
        threading.Thread(
            target=self._serve, args=(site,), name=name, daemon=True
        ).start()

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
        self._hands.release()

    def _serve(self, site: str) -> None:
        while not self._stop.is_set():
            try:
                self._converse(site)
            except Exception:
                # The edge to Flower: it retries for ever inside or raises anything.
                log.warning("site %s: no answer through Flower", site, exc_info=True)
                self._stop.wait(self._timing.retry)

    def _converse(self, site: str) -> None:
        node = self._directory().get(site)
        if node is None:
            self._stop.wait(self._timing.retry)
            return
        ids = self._send(site, node)
        if self._await_answer(site, ids):
            self._wake[site].wait()
            self._wake[site].clear()
        else:
            self._stop.wait(self._timing.retry)

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

    def _await_answer(self, site: str, ids: list[str]) -> bool:
        while not self._stop.is_set():
            if not self._hands.acquire(timeout=self._timing.poll):
                continue
            found = self._pull(site, ids)
            if found is None:
                self._hands.release()
                self._stop.wait(self._timing.poll)
                continue
            if not found:
                self._hands.release()
                return False
            return True
        return True

    def _pull(self, site: str, ids: list[str]) -> bool | None:
        """Return True for an answer, False for an error reply, None for nothing yet."""
        for received in self._grid.pull_messages(ids):
            try:
                data = records.read(received, self._max_bytes)
            except VerificationError as bad:
                log.info("site %s: %s; asking again", site, bad)
                return False
            self._answers.put(Answer(site, data))
            return True
        return None
