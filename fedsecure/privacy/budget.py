"""A data set's privacy budget at its site: reserve, then touch; never refund.

One ledger holds all that was ever asked of a data set, whatever run, model, process or
aggregator asked. Spending is recomputed from its events and never stored as truth, so
a better accountant re-values history (PRIVACY.md section 8).
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedsecure.accounting import PrivacyEvent, Relation, grouped
from fedsecure.errors import (
    BudgetExhausted,
    ConfigurationError,
    InputConflict,
    LedgerCorrupt,
)
from fedsecure.ledger import Ledger, Record
from fedsecure.privacy.plan import (
    AccountantFactory,
    check_delta,
    event_document,
    read_event,
)
from fedsecure.update import JSON, RoundId


class State(StrEnum):
    """What became of a reservation; it is charged in all three."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Content:
    """Which rows the budget is about.

    Attributes
    ----------
    dataset : str
        The steward's name of the data set; spending is counted by it.
    fingerprint : str
        A keyed fingerprint of the present content. A new one inherits all spending.
    rows : int
        How many; never written down.
    """

    dataset: str
    fingerprint: str
    rows: int


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How much the site's policy allows to be spent on a data set, over all time.

    Attributes
    ----------
    max_epsilon, delta : float
    relation : Relation
        What epsilon is about. Every event is valued under it.
    policy_digest : bytes
        Of the policy that says so; 32 bytes.
    """

    max_epsilon: float
    delta: float
    relation: Relation
    policy_digest: bytes

    def __post_init__(self) -> None:
        """Refuse a ceiling that is no ceiling."""
        if not (math.isfinite(self.max_epsilon) and self.max_epsilon > 0):
            raise ConfigurationError(
                f"max_epsilon={self.max_epsilon}, must be positive and finite"
            )


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


class Budget:
    """Grants reservations as long as everything ever reserved stays within a ceiling.

    Made by `open`, once per ledger and data set; the ledger's lock keeps a second
    process out. Call `recover` before the first reservation.
    """

    def __init__(
        self,
        ledger: Ledger,
        dataset: str,
        ceiling: Ceiling,
        guards: Sequence[AccountantFactory],
    ) -> None:
        """Read the data set's history from the ledger; use `open`."""
        self._ledger, self._dataset = ledger, dataset
        self._ceiling, self._guards = ceiling, guards
        self._reservations: dict[int, Reservation] = {}
        self._states: dict[int, State] = {}
        self._latest: dict[RoundId, int] = {}
        self._opening: Mapping[str, JSON] | None = None
        for record in ledger.records():
            self._replay(record)

    @classmethod
    def open(
        cls,
        ledger: Ledger,
        content: Content,
        ceiling: Ceiling,
        guards: Sequence[AccountantFactory],
    ) -> "Budget":
        """Return the budget of a data set, with all its past spending.

        A line is added if content, ceiling or policy differ from the last one's.

        Parameters
        ----------
        guards : sequence of AccountantFactory
            Asked in turn until one finds the ceiling kept; each must be an upper
            bound, the cheapest first.

        Raises
        ------
        ConfigurationError
            If delta >= 1/rows, or no guard is given.
        LedgerCorrupt
            If a budget line cannot be read.
        """
        check_delta(ceiling.delta, content.rows)
        if not guards:
            raise ConfigurationError("a budget needs at least one accountant")
        budget = cls(ledger, content.dataset, ceiling, guards)
        opening: dict[str, JSON] = {
            "fingerprint": content.fingerprint,
            "max_epsilon": ceiling.max_epsilon,
            "delta": ceiling.delta,
            "relation": str(ceiling.relation),
            "policy": ceiling.policy_digest.hex(),
        }
        if budget._opening != opening:
            budget._append("budget.open", opening)
        return budget

    def reserve(
        self, round_id: RoundId, plan_digest: bytes, event: PrivacyEvent
    ) -> Reservation:
        """Charge `event`; on return the charge is durable and the data may be read.

        After a void the same round may be reserved again under the same plan, at a new
        charge: noise that was thrown away was still drawn for somebody.

        Raises
        ------
        BudgetExhausted
            If the ceiling would be passed. The message stays at the site.
        InputConflict
            If the round was answered, is being answered, or had another plan.
        ConfigurationError
            If no accountant knows the event.
        """
        self._check_round(round_id, plan_digest)
        ceiling = self._ceiling
        events = [*self._events(), event]
        after = self._value(events, ceiling.delta, enough=ceiling.max_epsilon)
        if not after <= ceiling.max_epsilon:
            raise BudgetExhausted(self._exhausted(after))
        detail: dict[str, JSON] = {
            "plan": plan_digest.hex(),
            "event": {
                **event_document(event),
                "relation": str(ceiling.relation),
                "unit": "example",
            },
            "epsilon_after": {"guard": after, "delta": ceiling.delta},
        }
        record = self._append("budget.reserve", detail, round_id)
        return self._reservations[record.seq]

    def commit(self, reservation: Reservation, outgoing: bytes) -> None:
        """Record that the answer is in the outbox; `outgoing` is a SHA-256 of it.

        Of its signed head, which names the body by its digest.

        Raises
        ------
        InputConflict
            If the reservation was already committed or voided.
        """
        if len(outgoing) != hashlib.sha256().digest_size:
            raise ConfigurationError(
                f"outgoing digest has {len(outgoing)} bytes, SHA-256 has 32"
            )
        self._settle(reservation, "commit", {"sha256": outgoing.hex()})

    def void(self, reservation: Reservation, reason: str) -> None:
        """Record that nothing left the site. The charge stays: there are no refunds.

        Raises
        ------
        InputConflict
            If the reservation was already committed or voided.
        """
        self._settle(reservation, "void", {"reason": reason})

    def recover(self, outbox_has: Callable[[RoundId], bytes | None]) -> None:
        """Settle what a crash left open, before anything new is reserved.

        Parameters
        ----------
        outbox_has : callable
            From a round to the head that lies in the outbox for it, or None.
        """
        for seq, reservation in list(self._reservations.items()):
            if self._states[seq] is not State.RESERVED:
                continue
            data = outbox_has(reservation.round)
            if data is None:
                self.void(reservation, "process ended before the outbox was written")
            else:
                self.commit(reservation, hashlib.sha256(data).digest())

    def epsilon(self, delta: float) -> float:
        """Return what was ever spent on the data set, by the tightest guard."""
        return self._value(self._events(), delta, enough=0.0)

    def spent_by_run(self) -> dict[str, float]:
        """Return each run's epsilon alone, at the ceiling's delta.

        They do not add up to `epsilon`: composition is better than a sum.
        """
        runs: dict[str, list[PrivacyEvent]] = {}
        for reservation in self._reservations.values():
            runs.setdefault(reservation.round.run, []).append(reservation.event)
        delta = self._ceiling.delta
        return {run: self._value(e, delta, enough=0.0) for run, e in runs.items()}

    def _events(self) -> list[PrivacyEvent]:
        return [r.event for r in self._reservations.values()]

    def _value(
        self, events: Sequence[PrivacyEvent], delta: float, *, enough: float
    ) -> float:
        """Return the first guard's epsilon that is `enough` or less, or the least."""
        relation, merged = self._ceiling.relation, grouped(events)
        values: list[float] = []
        for factory in self._guards:
            accountant = factory(relation)
            if not all(accountant.supports(event) for event in merged):
                continue
            for event in merged:
                accountant.compose(event)
            values.append(accountant.epsilon(delta) if merged else 0.0)
            if values[-1] <= enough:
                break
        if not values:
            raise ConfigurationError(
                f"no accountant knows all events of data set {self._dataset!r} under "
                f"{relation}; nothing was reserved"
            )
        return min(values)

    def _exhausted(self, after: float) -> str:
        ceiling = self._ceiling
        runs = ", ".join(f"{run} {eps:.4g}" for run, eps in self.spent_by_run().items())
        return (
            f"data set {self._dataset!r}: epsilon {self.epsilon(ceiling.delta):.4g} is "
            f"spent (each run alone: {runs or 'none'}), this round would make it "
            f"{after:.4g}, the ceiling is {ceiling.max_epsilon} at delta "
            f"{ceiling.delta}, {ceiling.relation}; nothing was touched. End "
            "the run, or let the steward raise the ceiling"
        )

    def _check_round(self, round_id: RoundId, plan_digest: bytes) -> None:
        seq = self._latest.get(round_id)
        if seq is None:
            return
        where = f"round {round_id.number} of run {round_id.run!r}"
        if self._states[seq] is not State.VOID:
            raise InputConflict(
                f"{where} is {self._states[seq]} already (ledger line {seq}); its "
                "answer is in the outbox or on its way, and no second one is made"
            )
        if self._reservations[seq].plan_digest != plan_digest:
            raise InputConflict(
                f"{where} was reserved under another plan (ledger line {seq})"
            )

    def _settle(
        self, reservation: Reservation, action: str, detail: dict[str, JSON]
    ) -> None:
        state = self._states.get(reservation.seq)
        if state is not State.RESERVED:
            raise InputConflict(
                f"cannot {action} ledger line {reservation.seq}: it is {state}"
            )
        reserve: dict[str, JSON] = {"reserve": reservation.seq}
        self._append(f"budget.{action}", reserve | detail, reservation.round)

    def _append(
        self, action: str, detail: Mapping[str, JSON], round_id: RoundId | None = None
    ) -> Record:
        """Write a line durably, then believe it as if it had been read."""
        run, number = ("", 0) if round_id is None else (round_id.run, round_id.number)
        record = self._ledger.append(
            action, self._dataset, run=run, round=number, detail=detail
        )
        self._replay(record)
        return record

    def _replay(self, record: Record) -> None:
        """Take one ledger line into account; the only place where state changes."""
        if record.object != self._dataset or not record.action.startswith("budget."):
            return
        try:
            self._read(record)
        except (KeyError, TypeError, ValueError, ConfigurationError) as bad:
            raise LedgerCorrupt(
                f"ledger line {record.seq} ({record.action}) cannot be read: {bad!r}; "
                "it was written by another version or by hand"
            ) from bad

    def _read(self, record: Record) -> None:
        match record.action:
            case "budget.open":
                self._opening = dict(record.detail)
            case "budget.reserve":
                made = _reservation(record)
                self._reservations[made.seq] = made
                self._states[made.seq] = State.RESERVED
                self._latest[made.round] = made.seq
            case "budget.commit" | "budget.void":
                seq = int(str(record.detail["reserve"]))
                if self._states[seq] is not State.RESERVED:
                    raise ValueError(f"line {seq} is {self._states[seq]}")
                done = record.action == "budget.commit"
                self._states[seq] = State.COMMITTED if done else State.VOID
            case _:
                raise ValueError("unknown budget action")


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
