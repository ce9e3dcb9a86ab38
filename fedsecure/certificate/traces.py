"""What is left of a run to certify it from: plan, ledgers and the model's size.

Either the folder that `fedsecure run` leaves, with everybody's ledgers, or a site's own
kit after a run of daemons, with its own ledger only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsecure import registry
from fedsecure.access.roster import Role, Roster
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, LedgerCorrupt, NotFound
from fedsecure.ledger import Record, verify_ledger
from fedsecure.monitor.observer import read_lines
from fedsecure.shelf import Shelf
from fedsecure.update import JSON

PLAN = "plan.json"
_LARGEST_PLAN = 1 << 20
_LARGEST_OBJECT = 1 << 30
_LEDGERS = ("ledgers/*.jsonl", "sites/*/ledger.jsonl", "aggregators/*/ledger.jsonl")
_EVENTS = ("events/*.jsonl", "aggregators/*/events.jsonl")


@dataclass(frozen=True, slots=True)
class Traces:
    """A run as its traces tell it.

    Attributes
    ----------
    plan : Mapping
        Its document.
    ledgers : mapping of str to tuple of Record
        By owner; all of them verify, with the keys of the roster.
    sites : frozenset of str
        Which of the owners are sites.
    parameters : int
        Coordinates of the model; 0: not known.
    """

    plan: Mapping[str, JSON]
    ledgers: Mapping[str, tuple[Record, ...]]
    sites: frozenset[str]
    parameters: int

    @property
    def run(self) -> str:
        """The run's name."""
        return str(self.plan["run"])

    def of_run(self, action: str) -> list[Record]:
        """Return every owner's lines of an action in this run."""
        return [
            record
            for records in self.ledgers.values()
            for record in records
            if record.action == action and record.run == self.run
        ]


def traces_of_folder(folder: Path, roster: Roster) -> Traces:
    """Return the traces that a run's folder holds.

    Raises
    ------
    ConfigurationError
        It is no run's folder.
    LedgerCorrupt
        A ledger does not verify, or its owner is no member: nothing is certified.
    """
    try:
        data = SystemDisk().read(folder / PLAN, _LARGEST_PLAN)
        plan = json.loads(data)
    except NotFound as missing:
        raise ConfigurationError(
            f"{folder} holds no {PLAN}: pass the folder that `fedsecure run` printed "
            "last, or a run's name together with --kit and a site's kit"
        ) from missing
    except ValueError as bad:
        raise ConfigurationError(f"{folder / PLAN} is not JSON: {bad}") from bad
    if not isinstance(plan, dict) or "run" not in plan:
        raise ConfigurationError(f"{folder / PLAN} is no run's plan")
    found = [path for pattern in _LEDGERS for path in sorted(folder.glob(pattern))]
    ledgers = {_owner(path): path for path in found}
    lines = [
        line
        for pattern in _EVENTS
        for path in sorted(folder.glob(pattern))
        for line in read_lines(path)
    ]
    began = [line for line in lines if line["event"] == "began"]
    parameters = int(str(began[0]["parameters"])) if began else 0
    return _traces(plan, ledgers, roster, parameters)


def traces_of_kit(kit: Path, run: str, name: str, roster: Roster) -> Traces:
    """Return the traces of a run that a site's daemon left in its kit.

    Raises
    ------
    ConfigurationError
        The site never joined such a run.
    LedgerCorrupt
        Its ledger does not verify.
    """
    state = kit / "state"
    store = registry.load("stores", "local").create({"path": state / "shelf"})
    shelf = Shelf(store, run, _LARGEST_OBJECT)
    plan, layout = shelf.plan(), shelf.layout()
    if plan is None:
        raise ConfigurationError(
            f"{kit}: this site never joined a run {run!r}; `fedsecure privacy report "
            "--kit` lists those it did"
        )
    size = 0 if layout is None else layout.num_parameters
    return _traces(plan, {name: state / "ledger.jsonl"}, roster, size)


def _traces(
    plan: Mapping[str, JSON],
    ledgers: Mapping[str, Path],
    roster: Roster,
    parameters: int,
) -> Traces:
    read = {}
    for owner, path in ledgers.items():
        member = roster.members.get(owner)
        if member is None:
            raise LedgerCorrupt(
                f"{path}: {owner!r} is no member of roster {roster.version}: pass the "
                "kit of a member of the run's own federation"
            )
        read[owner] = verify_ledger(path, SystemDisk(), member.signing)
    sites = {owner for owner in read if roster.members[owner].role == Role.SITE}
    return Traces(plan, read, frozenset(sites), parameters)


def _owner(path: Path) -> str:
    return path.stem if path.name != "ledger.jsonl" else path.parent.name


def least_participants(traces: Traces) -> int | None:
    """Return how few sites a sum that was opened had; None: none was opened."""
    opened: Sequence[Record] = traces.of_run("aggregate.opened")
    return min((int(str(r.detail["sites"])) for r in opened), default=None)
