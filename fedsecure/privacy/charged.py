"""What a ledger says was done to a data set: events, of one run or of all time."""

from collections.abc import Iterable

from fedsecure.accounting import PrivacyEvent
from fedsecure.errors import ConfigurationError, LedgerCorrupt
from fedsecure.ledger import Record
from fedsecure.privacy.plan import read_event


def charged(
    records: Iterable[Record], run: str | None = None, dataset: str | None = None
) -> list[PrivacyEvent]:
    """Return the events reserved, in order; whether their bytes left is not asked.

    Parameters
    ----------
    run : str or None
        Of this run only; None: of all.
    dataset : str or None
        Of this data set only; None: of all.

    Raises
    ------
    LedgerCorrupt
        A budget line cannot be read.
    """
    return [
        _event(record)
        for record in records
        if record.action == "budget.reserve"
        and run in {None, record.run}
        and dataset in {None, record.object}
    ]


def _event(record: Record) -> PrivacyEvent:
    found = record.detail.get("event")
    try:
        if isinstance(found, dict):
            return read_event(found)
    except (KeyError, ConfigurationError) as bad:
        raise LedgerCorrupt(
            f"ledger line {record.seq} ({record.action}) cannot be read: {bad!r}"
        ) from bad
    raise LedgerCorrupt(f"ledger line {record.seq} ({record.action}) has no event")
