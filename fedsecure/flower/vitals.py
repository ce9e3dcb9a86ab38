"""Whether this aggregator could do a leader's work now, and if not, why not.

A lease shows that a campaign's thread lives. It says nothing of the SuperLink, which
may stand still while calls to it are retried for ever, nor of the thread that drives
rounds (RESILIENCE section 4, docs/adr/0031). So both are looked at where the lease is
renewed.
"""

import logging
import threading
from collections.abc import Callable

from fedsecure.clock import Clock
from fedsecure.monitor.stillness import Stillness

log = logging.getLogger(__name__)

SILENCE, SILENCE_TTLS = 15.0, 5
"""Seconds, and leases, without an answer after which a SuperLink is silent."""
STEP = 600.0
"""Seconds that the longest step of a round may take: 1 GiB onto slow stores, twice."""
_EVERY = 1.0
"""Seconds between an answer and the next question."""


class Vitals:
    """The signs of life of one aggregator, as its campaign looks at them.

    Parameters
    ----------
    ttl : float
        Of the lease; seconds.
    clock : Clock
    tell : callable
        Told once of each change: what ails it, or "" when it is well again. It must not
        raise.
    """

    def __init__(self, ttl: float, clock: Clock, tell: Callable[[str], None]) -> None:
        self._answers = Stillness(max(SILENCE, SILENCE_TTLS * ttl), clock)
        self._steps = Stillness(STEP, clock)
        self._tell = tell
        self._told = ""
        self._refusal = ""
        self._rests = threading.Event()
        self.stuck = False
        """Whether the thread that drives rounds stood still at the last look."""

    def watch(self, ask: Callable[[], object]) -> None:
        """Begin to ask the SuperLink, in a thread of its own.

        Parameters
        ----------
        ask : callable
            Returns once the SuperLink answered; it may block for ever.
        """
        threading.Thread(
            target=self._ask_on, args=(ask,), name="vitals", daemon=True
        ).start()

    def rest(self) -> None:
        """Ask no more. A question that is on its way is not waited for."""
        self._rests.set()

    def step(self) -> None:
        """Say that the thread which drives rounds went on."""
        self._steps.moved()

    def ailment(self) -> str:
        """Look; return why this aggregator cannot lead now, "" if it can.

        The words change only when the cause does: they are logged when they change.
        """
        silent, self.stuck = self._answers.too_long(), self._steps.too_long()
        found = ""
        if silent:
            found = (
                f"its SuperLink has not answered for {self._answers.limit:.0f} s"
                f"{self._refusal}"
            )
        elif self.stuck:
            found = f"its round made no step for {self._steps.limit:.0f} s"
        if found != self._told:
            self._told = found
            log.warning("%s", found or "it is well again")
            self._tell(found)
        return found

    def _ask_on(self, ask: Callable[[], object]) -> None:
        while not self._rests.is_set():
            try:
                ask()
            except Exception as bad:  # noqa: BLE001 - the edge to Flower, as in `post`
                self._refusal = f" (last: {type(bad).__name__})"
            else:
                self._refusal = ""
                self._answers.moved()
            self._rests.wait(_EVERY)
