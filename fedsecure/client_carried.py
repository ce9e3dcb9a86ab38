"""Releases that standby aggregators bring to a site: what came, what is on its way.

A leader's letter names the release it builds on and, if it leaves the bytes to a
standby, how long they are worth waiting for. Letter and release come through different
supernodes, so the letter may be first: the site then waits a while before it says that
the release is missing (docs/adr/0030).
"""

from collections import Counter
from collections.abc import Mapping

from fedsecure.errors import VerificationError
from fedsecure.parts import count
from fedsecure.release import BROUGHT, ELSEWHERE
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

_LONGEST = 60.0


class Carried:
    """What standbys brought to this site since its process started."""

    def __init__(self) -> None:
        self._last = Counter[str]()

    def came(self, round_id: RoundId) -> None:
        """Remember that a round's release was brought, and was good."""
        known = self._last[round_id.run]
        self._last[round_id.run] = max(known, round_id.number)

    def header(self, run: str) -> dict[str, JSON]:
        """Return what an update says of it; empty where nothing was brought."""
        return {BROUGHT: self._last[run]} if self._last[run] else {}


def patience(header: Mapping[str, JSON]) -> float:
    """Return how long a request's release is worth waiting for; seconds, at most 60.

    0 where nothing is on its way. Seconds that are none are answered as if none were
    said: the release is missing, and the leader sends it.
    """
    try:
        return min(float(count(header, ELSEWHERE)), _LONGEST)
    except VerificationError:
        return 0.0
