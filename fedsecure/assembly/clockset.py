"""An operator's word that a machine's clock is right, after it once ran ahead."""

from pathlib import Path

from fedsecure.access.kit import read_kit
from fedsecure.access.roster import Role
from fedsecure.clock import Clock
from fedsecure.disk import SystemDisk
from fedsecure.ledger import Ledger
from fedsecure.witness import CLOCK_SET


def accept_clock(path: Path, clock: Clock) -> str:
    """Write that the clock is right into a site's ledger; return the line's time.

    Lines before it may bear later times from then on. The site's daemon must be down:
    the ledger has one writer.

    Raises
    ------
    KitError
        Not a site's kit.
    LedgerCorrupt
        The ledger does not verify.
    StorageError
        The site's daemon runs.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    kit.require(Role.SITE)
    ledger = Ledger.open(
        kit.state / "ledger.jsonl", kit.name, kit.signing, SystemDisk(), clock
    )
    try:
        newest = max(record.time for record in ledger.records())
        detail = {"newest": newest}
        return ledger.append(CLOCK_SET, kit.name, detail=detail).time
    finally:
        ledger.close()
