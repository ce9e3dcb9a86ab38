"""An operator's wish to a running aggregator, as a file beside its ledger."""

from dataclasses import dataclass
from pathlib import Path

from fedsecure.disk import Disk
from fedsecure.errors import AlreadyExists, NotFound

PAUSED, HANDOVER = "paused", "handover"
_SMALL = 1 << 10


@dataclass(frozen=True, slots=True)
class WishFile:
    """One wish: a new run key, a hand-over, or a pause.

    Attributes
    ----------
    state : Path
        The aggregator's state folder.
    name : str
        What is wished for.
    disk : Disk
    """

    state: Path
    name: str
    disk: Disk

    @classmethod
    def rotate(cls, state: Path, run: str, disk: Disk) -> "WishFile":
        """Return the wish for a new key of a run."""
        return cls(state, f"rotate-{run}", disk)

    @property
    def path(self) -> Path:
        """Where the wish lies."""
        return self.state / self.name

    def make(self) -> None:
        """Wish for it; idempotent."""
        try:
            self.disk.write_once(self.path, b"")
        except AlreadyExists:
            return

    def wanted(self) -> bool:
        """Return whether somebody wished for it."""
        try:
            self.disk.read(self.path, _SMALL)
        except NotFound:
            return False
        return True

    def granted(self) -> None:
        """Forget the wish; idempotent."""
        self.disk.delete(self.path)
