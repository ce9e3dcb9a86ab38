"""Re-reading all copies within a bandwidth, and making bad ones good: for ever, slowly.

Only what is kept for good is scrubbed. An update lives for one round, and bringing one
back that its leader dropped would undo the crypto-erase.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from fedsecure.checkpoint.copies import BAD, Looked, State, mend, plan
from fedsecure.checkpoint.inventory import Inventory, examiner
from fedsecure.checkpoint.judge import Family, family
from fedsecure.errors import StorageError

log = logging.getLogger(__name__)

KEPT = (Family.MANIFEST, Family.RELEASE, Family.BEGIN)
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one pass over the stores found and did.

    Attributes
    ----------
    keys, read : int
        Keys looked at; bytes read.
    bad, mended : int
        Copies that were not good; copies made good.
    lost : tuple of str
        Keys without a good copy on any store that answers.
    """

    keys: int = 0
    read: int = 0
    bad: int = 0
    mended: int = 0
    lost: tuple[str, ...] = ()

    def after(self, looked: Looked, mended: int) -> "Scrubbed":
        """Return the sum with one more key."""
        bad = sum(copy.state in BAD for copy in looked.copies)
        lost = (looked.key,) if looked.good is None and bad else ()
        return Scrubbed(
            self.keys + 1,
            self.read + looked.read,
            self.bad + bad,
            self.mended + mended,
            self.lost + lost,
        )


def pause(read: int, took: float, mb_per_s: float) -> float:
    """Return the seconds to wait so that `read` bytes do not exceed a bandwidth; pure.

    Parameters
    ----------
    took : float
        Seconds the reading itself took.
    """
    return max(0.0, read / (mb_per_s * MB) - took)


def scrub(
    inventory: Inventory,
    mb_per_s: float,
    now: Callable[[], float],
    wait: Callable[[float], bool],
) -> Scrubbed:
    """Look at every kept key once, and mend what is bad.

    A key that was there when the inventory was taken and is on no store by its turn
    was removed by retention.

    Parameters
    ----------
    now : callable
        Monotonic seconds.
    wait : callable
        Seconds -> whether to go on; False ends the pass early.
    """
    examine, total = examiner(inventory), Scrubbed()
    for key in inventory.names():
        if family(key) not in KEPT:
            continue
        started = now()
        looked, mended = examine(key), 0
        gone = all(copy.state == State.MISSING for copy in looked.copies)
        if gone and key in inventory.held:  # retention removed it meanwhile
            continue
        try:
            mended = mend(inventory.stores, looked, plan(looked))
        except StorageError as failed:
            log.warning("%s could not be made good: %s", key, failed)
        total = total.after(looked, mended)
        if not wait(pause(looked.read, now() - started, mb_per_s)):
            break
    return total
