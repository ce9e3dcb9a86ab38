"""Which sites get their releases from standbys: their own updates say so.

Nobody is asked whether a standby lives. A site's signed update says which release was
the last that a standby brought; while that goes up with the rounds, the next letter
leaves the bytes out. The first word under a leadership counts for nothing: it may be an
old update's, and who carried then may be who leads now. A site that misses what it was
to be brought is sent it, and is left to a standby again only once one was in time for a
letter (docs/adr/0030).
"""


class Brought:
    """One leadership's knowledge of what standbys bring."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._relied: set[str] = set()
        self._missed: set[str] = set()

    def relied(self, site: str) -> bool:
        """Return whether a standby will bring `site` the next release."""
        return site in self._relied

    def told(self, site: str, last: int, after: int) -> None:
        """Take what an update says.

        Parameters
        ----------
        last : int
            Round of the last release that a standby brought; 0: none.
        after : int
            Round of the release the update builds on.
        """
        news = last > self._last.get(site, last)
        self._last[site] = last
        in_time = news and last == after
        if in_time:
            self._missed.discard(site)
        if in_time or (news and last == after - 1 and site not in self._missed):
            self._relied.add(site)
        else:
            self._relied.discard(site)

    def missed(self, site: str) -> bool:
        """Send `site` its releases again; return whether it was left to a standby."""
        if site not in self._relied:
            return False
        self._relied.discard(site)
        self._missed.add(site)
        return True
