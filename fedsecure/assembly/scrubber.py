"""The thread of an aggregator that scrubs its stores while rounds go on."""

import logging
import threading
from collections.abc import Callable

from fedsecure.access.kit import Kit
from fedsecure.access.roster import Role, Roster
from fedsecure.checkpoint.inventory import Inventory
from fedsecure.checkpoint.judge import Judge
from fedsecure.checkpoint.rack import Rack
from fedsecure.checkpoint.scrub import Scrubbed, scrub
from fedsecure.clock import Clock
from fedsecure.errors import FedsecureError
from fedsecure.keys import VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.monitor.observer import Observer
from fedsecure.update import JSON

log = logging.getLogger(__name__)

FIRST, EVERY = 60.0, 600.0
"""Seconds before the first pass, and between the end of one and the next."""


class Scrubber:
    """Passes over the stores, one after the other, until it is stopped.

    Parameters
    ----------
    inventory : callable
        Takes a new look at what the stores hold.
    mb_per_s : float
        Bytes read a second, in 10^6; 0: it never starts.
    busy : callable
        Whether to wait: somebody else scrubs, or a round needs the disks.
    """

    def __init__(
        self,
        inventory: Callable[[], Inventory],
        mb_per_s: float,
        clock: Clock,
        observer: Observer,
        ledger: Ledger,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._inventory, self._mb_per_s = inventory, mb_per_s
        self._clock, self._observer, self._ledger = clock, observer, ledger
        self._busy, self._ended = busy, threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin in a thread of its own, which never holds the process up."""
        if self._mb_per_s > 0 and self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="scrubber", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End after the key at hand; idempotent."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def once(self) -> Scrubbed:
        """Do one pass, and note it; what was mended or lost is in the ledger too."""
        found = scrub(self._inventory(), self._mb_per_s, self._clock.now, self._wait)
        facts: dict[str, JSON] = {
            "keys": found.keys,
            "bytes": found.read,
            "bad": found.bad,
            "repaired": found.mended,
            "lost": list(found.lost[:8]),
        }
        self._observer.note("scrubbed", facts)
        if found.bad:
            self._observer.note("repaired", facts)
            self._ledger.append("checkpoint.repaired", "stores", detail=facts)
        for key in found.lost:
            log.error("%s: no good copy on any store: restore it from a backup", key)
        return found

    def _run(self) -> None:
        pause = FIRST
        while not self._ended.wait(pause):
            pause = EVERY
            try:
                if self._wait(0.0):
                    self.once()
            except FedsecureError as bad:
                log.warning("the stores could not be scrubbed: %s", bad)

    def _wait(self, seconds: float) -> bool:
        ended = self._ended.wait(seconds)
        while not ended and self._busy():
            ended = self._ended.wait(1.0)
        return not ended


def make_judge(kit: Kit, rack: Rack | None = None) -> Judge:
    """Return what tells good copies from bad ones with a kit's keys.

    A revoked member's too: what it signed before still counts.

    Parameters
    ----------
    rack : Rack, optional
        The key-encryption keys; without, the kit's own.
    """
    aggregators = _keys(kit.roster, Role.AGGREGATOR)
    sites = _keys(kit.roster, Role.SITE)
    return Judge(kit.name, kit.box, aggregators, sites, rack=rack)


def _keys(roster: Roster, role: Role) -> dict[str, VerifyKey]:
    return {m.name: m.signing for m in roster.members.values() if m.role == role}
