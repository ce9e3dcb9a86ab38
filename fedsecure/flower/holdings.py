"""What each site has shown to hold of a run: its keys, and the releases it opened.

A journalled update shows both: its site held the round's key and had opened the release
the round built on. So a new leader reads them from the journal, and a site is sent
again only what it says it lacks.
"""

from fedsecure.errors import KeyMissing, ReleaseMissing, VerificationError
from fedsecure.flower.beginning import Beginning
from fedsecure.flower.brought import Brought
from fedsecure.flower.leader import Leader
from fedsecure.metadata import Step

_LACKING = frozenset({KeyMissing.code, ReleaseMissing.code, VerificationError.code})
"""What a site answers that may have lost what it once held."""


class Holdings:
    """One leadership's knowledge of what sites hold.

    Attributes
    ----------
    brought : Brought
        Which of them get releases from standbys.
    """

    def __init__(self, leader: Leader, began: Beginning) -> None:
        self.brought = Brought()
        self._began = began
        self._keyed: dict[str, int] = {}
        self._opened: dict[str, int] = {}
        self._part: dict[str, tuple[int, int]] = {}
        entries = leader.entries(1)
        released = sorted({e.round for e in entries if e.step == Step.RELEASE})
        for entry in entries:
            if entry.step == Step.UPDATE:
                before = [number for number in released if number < entry.round]
                self.has(entry.site, max(before, default=0), entry.round)

    def begin_anew(self, began: Beginning) -> None:
        """Judge by the keys of a changed beginning from now on."""
        self._began = began

    def keyed(self, site: str) -> int:
        """Return the first round of the newest key `site` holds; -1: it has none."""
        return self._keyed.get(site, -1)

    def opened(self, site: str) -> int:
        """Return the last round whose release `site` opened; 0: none."""
        return self._opened.get(site, 0)

    def has(self, site: str, opened: int, number: int) -> None:
        """Remember that `site` holds round `number`'s key and opened a release."""
        self._keyed[site] = self._began.at(number).first_round
        self._opened[site] = opened
        self._part.pop(site, None)

    def sent_part(self, site: str, opened: int, number: int) -> None:
        """Remember that a letter held releases only up to one: more would not fit."""
        self._part[site] = (opened, number)

    def refused(self, site: str, code: str) -> bool:
        """Take a refusal; return whether the site is further than before it.

        What it lacks is sent next: the rest of what did not fit, or what a standby did
        not bring, or everything.
        """
        part = self._part.pop(site, None)
        missed = self.brought.missed(site)
        if code == ReleaseMissing.code and part is not None:
            self.has(site, *part)
            return True
        if code in _LACKING and not (missed and code == ReleaseMissing.code):
            self._keyed.pop(site, None)
            self._opened.pop(site, None)
        return False
