"""A run's journal as a file: what an aggregator's backup keeps of its engine."""

import json
from collections.abc import Iterator
from pathlib import Path

from fedsecure.access.kit import Kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config
from fedsecure.assembly.places import open_engine
from fedsecure.disk import Disk
from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, NotFound, VerificationError
from fedsecure.metadata import JournalEntry, Step
from fedsecure.update import JSON

_MAX_BYTES = 1 << 30


def export(kit: Kit) -> dict[str, bytes]:
    """Return the journal of the run a kit serves, by the name of its file.

    Nothing for a site, or before a run was given to an aggregator.

    Raises
    ------
    StorageError
        The engine does not answer.
    """
    if kit.role != Role.AGGREGATOR or not (kit.path / "aggregator.json").exists():
        return {}
    config = read_config(kit)
    run = str(config.plan.get("run"))
    engine = open_engine(config, look=True)
    # A round's key would outlive its round in a backup.
    entries = (e for e in engine.journal.entries(run, 0) if e.step != Step.KEY)
    lines = [canonical(_row(entry)) for entry in entries]
    return {_name(run): b"".join(line + b"\n" for line in lines)}


def kept(state: Path, run: str, disk: Disk) -> Iterator[JournalEntry]:
    """Yield the entries of an export that was restored; none where there is none.

    Raises
    ------
    VerificationError
        It is not such a file.
    """
    try:
        data = disk.read(state.parent / _name(run), _MAX_BYTES)
    except NotFound:
        return
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
            yield JournalEntry(
                str(row["run"]),
                int(row["round"]),
                Step(row["step"]),
                str(row["site"]),
                str(row["operation"]),
                canonical(row["detail"]),
            )
        except (ValueError, KeyError, TypeError, ConfigurationError) as bad:
            raise VerificationError(
                f"{_name(run)}: line {number} is no entry of a journal"
            ) from bad


def _name(run: str) -> str:
    return f"state/journal-{run}.jsonl"


def _row(entry: JournalEntry) -> dict[str, JSON]:
    return {
        "run": entry.run,
        "round": entry.round,
        "step": str(entry.step),
        "site": entry.site,
        "operation": entry.operation,
        "detail": json.loads(entry.detail),
    }
