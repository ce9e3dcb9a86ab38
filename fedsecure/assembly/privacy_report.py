"""What a site's data sets have spent, from its own ledger; read-only, local."""

from pathlib import Path

from fedsecure.access.kit import read_kit
from fedsecure.access.roster import Role
from fedsecure.accounting import Relation, enforced_with, guarantee
from fedsecure.disk import SystemDisk
from fedsecure.ledger import Record, verify_ledger
from fedsecure.privacy.plan import read_event

_ALL = "all runs"


def spending(path: Path) -> list[tuple[str, str, str, str, str, str]]:
    """Return rows: data set, run, rounds, epsilon, delta, relation; totals last.

    Valued by `pld`, or by `rdp` where some noise is discrete, at the delta of the
    site's ceiling; every reservation counts, whether its bytes left or not.

    Raises
    ------
    LedgerCorrupt
        The ledger does not verify: its figures would mean nothing.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    kit.require(Role.SITE)
    ledger = kit.state / "ledger.jsonl"
    records = verify_ledger(ledger, SystemDisk(), kit.signing.public)
    rows = []
    opened = {r.object: r for r in records if r.action == "budget.open"}
    for dataset, opening in sorted(opened.items()):
        spent = [
            r for r in records if r.action == "budget.reserve" and r.object == dataset
        ]
        for run in [*sorted({r.run for r in spent}), _ALL]:
            chosen = [r for r in spent if run in {r.run, _ALL}]
            rows.append(_row(dataset, run, chosen, opening))
    return rows


def _row(
    dataset: str, run: str, spent: list[Record], opening: Record
) -> tuple[str, str, str, str, str, str]:
    relation = Relation(str(opening.detail["relation"]))
    delta = float(str(opening.detail["delta"]))
    charged = [record.detail["event"] for record in spent]
    events = [read_event(event) for event in charged if isinstance(event, dict)]
    name = enforced_with(events)
    epsilon = guarantee(name, relation, events, delta).epsilon if spent else 0.0
    numbers = (str(len(spent)), f"{epsilon:.3f}", f"{delta:g}")
    return (dataset, run, *numbers, str(relation))
