"""The loop around `election.decide`: load, decide, act, sleep, in a thread of its own.

Grid calls retry for ever while a SuperLink is down, so renewal must not share a thread
with the round (FLOWER.md section 6, rule 10).
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fedsecure.clock import Clock
from fedsecure.election import Act, Standing, decide, ended, granted, lost
from fedsecure.errors import LeaseLost, StorageError
from fedsecure.flower.leader import Wish
from fedsecure.metadata import Lease, LeaseBoard

log = logging.getLogger(__name__)

_POLL = 0.02
"""Seconds between two looks at the board."""
_YIELD_TTLS = 3
"""Leases that another aggregator has to take over before this one campaigns again."""


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator asks of an aggregator while it runs.

    Attributes
    ----------
    paused : callable
        Whether it shall neither lead nor campaign.
    handover : Wish
        Whether another one shall lead.
    """

    paused: Callable[[], bool]
    handover: Wish


class Campaign:
    """One aggregator's leadership over time.

    Parameters
    ----------
    board : LeaseBoard
    name, address : str
        Who campaigns, and where it is reached.
    ttl : float
        Of the lease; seconds.
    clock : Clock
    ailment : callable
        Why this aggregator could not do a leader's work now; "" if it could.
    operator : Operator
        What was asked of this aggregator; by default nothing.
    beat : callable
        Called at each turn: who watches from outside sees that it does not hang.
    """

    def __init__(
        self,
        board: LeaseBoard,
        name: str,
        address: str,
        ttl: float,
        clock: Clock,
        *,
        ailment: Callable[[], str] = lambda: "",
        operator: Operator | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._beat = beat
        self._board = board
        self._address = address
        self._ttl = ttl
        self._clock = clock
        self._ailment = ailment
        self._operator = operator
        self._yields_until = 0.0
        self._yields_for = _YIELD_TTLS * ttl
        self._standing = Standing(name)
        self._leads = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="campaign", daemon=True)
        self._last_reason = ""
        self._holder = ""
        self._over = ""
        self._silent = ""
        self._floor = 0

    def start(self) -> None:
        """Begin to campaign."""
        self._thread.start()

    def stop(self) -> None:
        """Give the lease up and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._standing.lease is not None:
            self._give_up(self._standing.lease)
            self._standing = lost(self._standing)
        self._leads.clear()

    def wait(self, timeout: float) -> int | None:
        """Return the term once this aggregator leads; None after `timeout` seconds."""
        if not self._leads.wait(timeout):
            return None
        lease = self._standing.lease
        return None if lease is None else lease.term

    @property
    def holder(self) -> str:
        """Who led when this one last looked; "" for nobody, or itself."""
        return self._holder

    def check(self, term: int) -> None:
        """Return only while this aggregator leads under `term`.

        Raises
        ------
        LeaseLost
            It does not, or its lease ended on its own clock.
        """
        standing = self._standing
        if standing.lease is None or standing.lease.term != term:
            raise LeaseLost(f"term {term} is over{self._over}")
        if why := ended(standing, self._clock.now()):
            raise LeaseLost(f"term {term} {why}{self._silent}")

    def step_down(self, floor: int = 0) -> None:
        """Drop leadership at once; the board is told so that nobody waits.

        Parameters
        ----------
        floor : int
            A term somebody has seen: the next one won lies above it.
        """
        self._floor = max(self._floor, floor)
        lease, self._standing = self._standing.lease, lost(self._standing)
        self._leads.clear()
        if lease is not None:
            self._give_up(lease)

    def _give_up(self, lease: Lease) -> None:
        """Tell the board, so that nobody waits; a silent one lets the lease run out."""
        try:
            self._board.release(lease)
        except StorageError as silent:
            log.warning("lease board does not answer: %s; the lease ends", silent)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._beat()
            try:
                self._turn()
                self._silent = ""
            except StorageError as no_answer:
                # Could not ask is never "yes": the lease runs out by itself.
                said = " ".join(str(no_answer).split())
                self._silent = f": the lease board does not answer: {said}"
                log.warning("lease board does not answer: %s", no_answer)
            self._stop.wait(_POLL)

    def _turn(self) -> None:
        standing, ailment = self._standing, self._ailment()
        observed = self._board.read() if standing.lease is None else None
        self._holder = "" if observed is None else observed.holder
        if self._holder not in {"", standing.name}:
            self._yields_until = 0.0  # somebody took over: that is all that was asked
        decision = decide(
            standing,
            observed,
            self._clock.now(),
            ailment=ailment,
            frozen=self._operator is not None and self._operator.paused(),
            yielding=self._yielding(),
        )
        if decision.reason != self._last_reason and decision.act != Act.RENEW:
            log.info("%s: %s", decision.act, decision.reason)
            self._last_reason = decision.reason
        if decision.act == Act.STEP_DOWN:
            self._over = f": {decision.reason}{self._silent}"
        self._act(decision.act, standing)

    def _yielding(self) -> bool:
        """Return whether others come first: from a hand-over on, for some leases."""
        if self._operator is not None and self._operator.handover.wanted():
            self._yields_until = self._clock.now() + self._yields_for
            self._operator.handover.granted()
        # Not for longer than that either, should the clock go back.
        return 0 < self._yields_until - self._clock.now() <= self._yields_for

    def _act(self, act: Act, standing: Standing) -> None:
        sent = self._clock.now()
        if act == Act.CAMPAIGN:
            lease, sent = self._acquire(standing.name)
            if lease is not None:
                self._standing = granted(standing, lease, sent)
                self._over = ""
                self._leads.set()
        elif act == Act.RENEW and standing.lease is not None:
            renewed = self._board.renew(standing.lease)
            if self._standing is standing:  # not stepped down meanwhile
                self._hold(standing, renewed is not None, sent)
        elif act == Act.STEP_DOWN:
            self.step_down()

    def _acquire(self, name: str) -> tuple[Lease | None, float]:
        """Take the lease, again and again until its term lies above the floor.

        A restored engine may be hundreds of terms below what sites have seen, at some
        20 ms each: so each try beats, and the lease counts from the last one's sending.
        """
        while True:
            self._beat()
            sent = self._clock.now()
            lease = self._board.acquire(name, self._address, self._ttl)
            if lease is None or lease.term > self._floor:
                return lease, sent
            self._board.release(lease)
            if self._stop.is_set():
                return None, sent

    def _hold(self, standing: Standing, kept: bool, sent: float) -> None:
        if kept and standing.lease is not None:
            self._standing = granted(standing, standing.lease, sent)
        else:
            self._standing = lost(standing)
            self._leads.clear()
