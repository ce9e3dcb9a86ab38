"""What a ledger says was done to a data set: events, of one run or of all time."""

from collections.abc import Iterable, Sequence

from fedsecure.accounting import PrivacyEvent
from fedsecure.errors import ConfigurationError, LedgerCorrupt
from fedsecure.ledger import Record
from fedsecure.privacy.plan import read_event

_UNITS = ("example", "user", "site")
"""From the weakest: a part of all that come after it."""


def comparable(events: Sequence[tuple[PrivacyEvent, str]]) -> list[PrivacyEvent]:
    """Return events of several units as they are for the weakest of them.

    An epsilon is about one unit. Rows protected as persons are not protected as rows at
    the same price: see `PrivacyEvent.of_a_part`.

    Parameters
    ----------
    events : sequence of (PrivacyEvent, str)
        Each with the unit it was charged for.

    Raises
    ------
    ConfigurationError
        A unit that this version does not know.
    """
    for unit in {unit for _, unit in events} - set(_UNITS):
        raise ConfigurationError(
            f"unit {unit!r} is unknown; this version knows: {', '.join(_UNITS)}"
        )
    weakest = min((unit for _, unit in events), key=_UNITS.index, default="")
    return [e if unit == weakest else e.of_a_part() for e, unit in events]


def charged(
    records: Iterable[Record], run: str | None = None, dataset: str | None = None
) -> list[PrivacyEvent]:
    """Return the events reserved, in order; whether their bytes left is not asked.

    Of several units, they are told as `comparable` has them.

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
    found = [
        (_event(record), unit_of(record))
        for record in records
        if record.action == "budget.reserve"
        and run in {None, record.run}
        and dataset in {None, record.object}
    ]
    return comparable(found)


def unit_of(record: Record) -> str:
    """Return the unit of a reservation; lines from before it was written: example."""
    event = record.detail.get("event")
    return str(event.get("unit", "example")) if isinstance(event, dict) else "example"


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
