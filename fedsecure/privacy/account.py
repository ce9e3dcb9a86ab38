"""A data set's account: what the budget lines of a ledger add up to.

Everything here follows from the lines alone, so it is the same after every restart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedsecure.accounting import COUNTS, PrivacyEvent, Relation
from fedsecure.errors import ConfigurationError, LedgerCorrupt
from fedsecure.ledger import Record
from fedsecure.privacy.charged import unit_of
from fedsecure.privacy.plan import AccountantFactory, read_event
from fedsecure.privacy.spending import Spending
from fedsecure.update import JSON, RoundId

INHERITS = "inherits"
"""Field of a budget.open line whose content is another than the one before."""


class State(StrEnum):
    """What became of a reservation; it is charged in all of them."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RECEIPTED = "receipted"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A right to touch the data once, durable before it is used.

    Attributes
    ----------
    seq : int
        Its line in the ledger.
    """

    seq: int
    round: RoundId
    plan_digest: bytes
    event: PrivacyEvent


class Account:
    """Reservations of one data set, what became of each, and what they cost.

    Parameters
    ----------
    dataset : str
    relation : Relation
    guards : sequence of AccountantFactory
        See `Spending`.

    Attributes
    ----------
    opening : Mapping or None
        The last budget.open line's facts.
    spending : Spending
    """

    def __init__(
        self, dataset: str, relation: Relation, guards: Sequence[AccountantFactory]
    ) -> None:
        self._dataset = dataset
        self.spending = Spending(dataset, relation, guards)
        self.opening: Mapping[str, JSON] | None = None
        self._reservations: dict[int, Reservation] = {}
        self._states: dict[int, State] = {}
        self._latest: dict[tuple[RoundId, bool], int] = {}
        self._commits: dict[int, int] = {}
        self._voids: dict[tuple[str, bool], list[int]] = {}
        self._kept = Counter[tuple[str, bool]]()

    def replay(self, record: Record) -> None:
        """Take one ledger line into account; the only place where state changes.

        Raises
        ------
        LedgerCorrupt
            It is a budget line of this data set that cannot be read.
        """
        if record.object != self._dataset or not record.action.startswith("budget."):
            return
        try:
            self._read(record)
        except (KeyError, TypeError, ValueError, ConfigurationError) as bad:
            raise LedgerCorrupt(
                f"ledger line {record.seq} ({record.action}) cannot be read: {bad!r}; "
                "it was written by another version or by hand"
            ) from bad

    def state(self, seq: int) -> State | None:
        """Return what became of the reservation of a line; None: it is none."""
        return self._states.get(seq)

    def reservation(self, seq: int) -> Reservation:
        """Return the reservation of a line."""
        return self._reservations[seq]

    def latest(self, round_id: RoundId, event: PrivacyEvent) -> Reservation | None:
        """Return a round's last reservation for what `event` is for, or None.

        A round may be paid for twice: for training, and for the counts it tells.
        """
        seq = self._latest.get((round_id, event.kind == COUNTS))
        return None if seq is None else self._reservations[seq]

    def lost_in_a_row(self, run: str, event: PrivacyEvent) -> int:
        """Return how many reservations of a run became void since one did not.

        Of those for what `event` is for; over all rounds, in the ledger's order.
        """
        kind = (run, event.kind == COUNTS)
        return sum(seq > self._kept[kind] for seq in self._voids.get(kind, ()))

    def unsettled(self) -> list[Reservation]:
        """Return the reservations that are neither committed nor void."""
        found = self._states.items()
        return [self._reservations[s] for s, state in found if state is State.RESERVED]

    def without_receipt(self, seq: int) -> int | None:
        """Return the commit line of the latest answer that a head of `seq` covers.

        None if every answer reserved up to there has a receipt. An answer's own head is
        from between its reservation and its commit, so the reservation decides.
        """
        covered = [
            line
            for line, made in self._commits.items()
            if made <= seq and self._states[made] is State.COMMITTED
        ]
        return max(covered, default=None)

    def __len__(self) -> int:
        """Return how many reservations there are."""
        return len(self._reservations)

    def _read(self, record: Record) -> None:
        match record.action:
            case "budget.open":
                facts = record.detail.items()
                self.opening = {k: v for k, v in facts if k != INHERITS}
            case "budget.reserve":
                made = _reservation(record)
                self._reservations[made.seq] = made
                self._states[made.seq] = State.RESERVED
                self._latest[made.round, made.event.kind == COUNTS] = made.seq
                self.spending.add(made.round.run, made.event, unit_of(record))
            case "budget.commit":
                self._commits[record.seq] = self._settle(record, State.COMMITTED)
            case "budget.void":
                self._settle(record, State.VOID)
            case "budget.receipt":
                self._receipt(int(str(record.detail["commit"])))
            case _:
                raise ValueError("unknown budget action")

    def _settle(self, record: Record, state: State) -> int:
        seq = int(str(record.detail["reserve"]))
        if self._states[seq] is not State.RESERVED:
            raise ValueError(f"line {seq} is {self._states[seq]}")
        self._states[seq] = state
        made = self._reservations[seq]
        kind = (made.round.run, made.event.kind == COUNTS)
        # By when they were made: a restart voids old ones late, and all at once.
        if state is State.VOID:
            self._voids.setdefault(kind, []).append(seq)
        else:
            self._kept[kind] = max(self._kept[kind], seq)
        return seq

    def _receipt(self, commit: int) -> None:
        """Believe a receipt: who knows a line knows all before it."""
        until = self._commits[commit]
        for seq, state in self._states.items():
            if seq <= until and state is State.COMMITTED:
                self._states[seq] = State.RECEIPTED


def _reservation(record: Record) -> Reservation:
    event = record.detail["event"]
    if not isinstance(event, dict):
        raise TypeError("event is no object")
    return Reservation(
        record.seq,
        RoundId(record.run, record.round),
        bytes.fromhex(str(record.detail["plan"])),
        read_event(event),
    )
