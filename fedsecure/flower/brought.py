"""Which sites get their releases from standbys: their own updates say so.

Nobody is asked whether a standby lives. A site's signed update says which release was
the last that a standby brought; while that is the newest or the one before, the next
letter leaves the bytes out. A site that then misses them says so, is sent all of it,
and is left to a standby again only once one was in time for a letter (docs/adr/0030).
"""


class Brought:
    """One leadership's knowledge of what standbys bring."""

    def __init__(self) -> None:
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
        in_time = 0 < last == after
        if in_time:
            self._missed.discard(site)
        if in_time or (0 < last == after - 1 and site not in self._missed):
            self._relied.add(site)
        else:
            self._relied.discard(site)

    def missed(self, site: str) -> None:
        """Send `site` its releases, until a standby was in time again."""
        if site in self._relied:
            self._relied.discard(site)
            self._missed.add(site)
