"""An operator's wish for a new run key, as a file beside an aggregator's ledger."""

from dataclasses import dataclass
from pathlib import Path

from fedsecure.disk import Disk
from fedsecure.errors import AlreadyExists, NotFound

_SMALL = 1 << 10


@dataclass(frozen=True, slots=True)
class WishFile:
    """Whether a run shall get a new key before its next round.

    Attributes
    ----------
    state : Path
        The aggregator's state folder.
    run : str
    disk : Disk
    """

    state: Path
    run: str
    disk: Disk

    @property
    def path(self) -> Path:
        """Where the wish lies."""
        return self.state / f"rotate-{self.run}"

    def make(self) -> None:
        """Wish for a new key; idempotent."""
        try:
            self.disk.write_once(self.path, b"")
        except AlreadyExists:
            return

    def wanted(self) -> bool:
        """Return whether somebody wished for one."""
        try:
            self.disk.read(self.path, _SMALL)
        except NotFound:
            return False
        return True

    def granted(self) -> None:
        """Forget the wish; idempotent."""
        self.disk.delete(self.path)
