"""A checker of our own: is there one order in time that explains every answer?

For one register with read and compare-and-set, which is what a head and a lease are
(Wing and Gong 1993; Lowe 2017 for the memory of states seen). An operation without a
known outcome may have happened at any time after it was sent, or never.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

FOREVER = float("inf")


class Outcome(StrEnum):
    """What the caller was told."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Operation:
    """One question to the register, as its caller saw it.

    Attributes
    ----------
    sent, answered : float
        On one clock; `answered` counts only if the outcome is known.
    outcome : Outcome
    found : object
        What a read returned. None is a value: the register is empty.
    change : (object, object) or None
        Compare-and-set: from what, to what. None: a read.
    """

    sent: float
    answered: float
    outcome: Outcome
    found: object = None
    change: tuple[object, object] | None = None

    @property
    def ends(self) -> float:
        """Until when it took effect, if it did."""
        return FOREVER if self.outcome == Outcome.UNKNOWN else self.answered

    def after(self, value: object) -> tuple[bool, object]:
        """Return whether the answer fits a register of `value`, and its next value."""
        if self.change is None:
            return self.outcome == Outcome.UNKNOWN or self.found == value, value
        before, after = self.change
        fits = before == value
        if self.outcome == Outcome.REFUSED:
            return not fits, value
        if self.outcome == Outcome.DONE:
            return fits, after
        return True, after if fits else value


def is_linearizable(history: Sequence[Operation], first: object = None) -> bool:
    """Return whether some order of the operations explains every answer.

    The order keeps time: an operation that was answered before another was sent comes
    before it.
    """
    operations = sorted(history, key=lambda operation: operation.sent)
    everything = (1 << len(operations)) - 1
    seen: set[tuple[int, object]] = set()

    def explained(done: int, value: object) -> bool:
        if (done, value) in seen:
            return False
        seen.add((done, value))
        left = [i for i in range(len(operations)) if not done >> i & 1]
        if all(operations[i].outcome == Outcome.UNKNOWN for i in left):
            return True  # they may all never have happened
        bound = min(operations[i].ends for i in left)
        for i in left:
            if operations[i].sent > bound:
                break
            fits, after = operations[i].after(value)
            if fits and explained(done | 1 << i, after):
                return True
        return False

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 4 * len(operations) + 1000))
    try:
        return everything == 0 or explained(0, first)
    finally:
        sys.setrecursionlimit(before)
