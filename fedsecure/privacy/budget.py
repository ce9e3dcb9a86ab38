"""A data set's privacy budget at its site: reserve, then touch; never refund.

One ledger holds all that was ever asked of a data set, whatever run, model, process or
aggregator asked. Spending is recomputed from its events and never stored as truth, so
a better accountant re-values history (PRIVACY.md section 8).
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.errors import (
    AttemptsSpent,
    BudgetExhausted,
    ConfigurationError,
    InputConflict,
    PolicyRefused,
)
from fedsecure.ledger import Ledger, Record
from fedsecure.privacy.account import INHERITS, Account, Reservation, State
from fedsecure.privacy.plan import AccountantFactory, check_delta, event_document
from fedsecure.update import JSON, RoundId

ATTEMPTS = 4
"""Charges in a row, of which nothing was kept, after which no round of a run is tried
twice; docs/adr/0033 says why four."""


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
    users : int
        Persons behind them, never written down either; 0: not told apart.
    """

    dataset: str
    fingerprint: str
    rows: int
    users: int = 0

    def counted(self, unit: str) -> tuple[int, str]:
        """Return what delta is compared with where `unit` is protected, and its name.

        Persons, if the unit is the user and the site tells them apart. Else rows: there
        are as many rows as persons at least, so that is the stricter bound.
        """
        if unit == "user" and self.users:
            return self.users, "users"
        return self.rows, "rows"


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
    per_run_epsilon : float
        What one run may spend; infinity: all that is left.
    content_may_change : bool
        Whether other rows under the same id are taken, with all spending inherited.
    unit : str
        The weakest unit that is served: "example", "user" or "site".
    """

    max_epsilon: float
    delta: float
    relation: Relation
    policy_digest: bytes
    per_run_epsilon: float = math.inf
    content_may_change: bool = True
    unit: str = "example"

    def __post_init__(self) -> None:
        """Refuse a ceiling that is no ceiling."""
        if not (math.isfinite(self.max_epsilon) and self.max_epsilon > 0):
            raise ConfigurationError(
                f"max_epsilon={self.max_epsilon}, must be positive and finite"
            )
        if not self.per_run_epsilon > 0:
            raise ConfigurationError(
                f"per_run_epsilon={self.per_run_epsilon}, must be positive"
            )


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
        self._ceiling = ceiling
        self._account = Account(dataset, ceiling.relation, guards)
        for record in ledger.records():
            self._account.replay(record)

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
            If delta >= 1/rows (1/users where no weaker unit is served), or no guard is
            given.
        LedgerCorrupt
            If a budget line cannot be read.
        PolicyRefused
            If the content is another than before and the ceiling does not allow that.
        """
        check_delta(ceiling.delta, *content.counted(ceiling.unit))
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
        before = budget._account.opening
        if before != opening:
            inherits = budget._inherits(content, before)
            budget._append("budget.open", opening | inherits)
        return budget

    def reserve(
        self,
        round_id: RoundId,
        plan_digest: bytes,
        event: PrivacyEvent,
        unit: str = "example",
    ) -> Reservation:
        """Charge `event`; on return the charge is durable and the data may be read.

        After a void the same round may be reserved again under the same plan, at a new
        charge: noise that was thrown away was still drawn for somebody. Not for ever:
        once `ATTEMPTS` in a row were lost in a run, only rounds never tried are.

        Parameters
        ----------
        unit : str
            What neighbouring data sets differ by; written down.

        Raises
        ------
        BudgetExhausted
            If a ceiling would be passed. The message stays at the site.
        InputConflict
            If the round was answered, is being answered, or had another plan.
        AttemptsSpent
            If it was tried before, and too many charges in a row came to nothing.
        ConfigurationError
            If no accountant knows the event.
        """
        self._check_round(round_id, plan_digest, event)
        ceiling, delta = self._ceiling, self._ceiling.delta
        after = self._account.spending.all_with(
            event, delta=delta, enough=ceiling.max_epsilon, unit=unit
        )
        if not after <= ceiling.max_epsilon:
            raise BudgetExhausted(self._exhausted(after))
        self._check_run(round_id.run, event, unit)
        detail: dict[str, JSON] = {
            "plan": plan_digest.hex(),
            "event": {
                **event_document(event),
                "relation": str(ceiling.relation),
                "unit": unit,
            },
            "epsilon_after": {"guard": after, "delta": ceiling.delta},
        }
        record = self._append("budget.reserve", detail, round_id)
        return self._account.reservation(record.seq)

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

    def receipt(self, aggregator: str, seq: int, digest: bytes) -> None:
        """Record that an aggregator returned a signed head of this ledger.

        One line for the latest answer that the head is sure to cover, if there is one
        without a receipt: who knows line n knows all before it.

        Parameters
        ----------
        seq : int
            Length of the ledger that the aggregator knows of.
        digest : bytes
            Hash of its last line.
        """
        commit = self._account.without_receipt(seq)
        if commit is not None:
            detail: dict[str, JSON] = {
                "commit": commit,
                "aggregator": aggregator,
                "head": {"seq": seq, "hash": digest.hex()},
            }
            self._append("budget.receipt", detail)

    def recover(self, outbox_has: Callable[[RoundId], bytes | None]) -> None:
        """Settle what a crash left open, before anything new is reserved.

        Parameters
        ----------
        outbox_has : callable
            From a round to the head that lies in the outbox for it, or None.
        """
        for reservation in self._account.unsettled():
            data = outbox_has(reservation.round)
            if data is None:
                self.void(reservation, "process ended before the outbox was written")
            else:
                self.commit(reservation, hashlib.sha256(data).digest())

    def epsilon(self, delta: float) -> float:
        """Return what was ever spent on the data set, by the tightest guard."""
        return self._account.spending.all_with(delta=delta)

    def spent_by_run(self) -> dict[str, float]:
        """Return each run's epsilon alone, at the ceiling's delta.

        They do not add up to `epsilon`: composition is better than a sum.
        """
        return self._account.spending.by_run(self._ceiling.delta)

    def _check_run(self, run: str, event: PrivacyEvent, unit: str) -> None:
        ceiling = self._ceiling
        if math.isinf(ceiling.per_run_epsilon):
            return
        bound = ceiling.per_run_epsilon
        after = self._account.spending.run_with(
            run, event, delta=ceiling.delta, enough=bound, unit=unit
        )
        if not after <= bound:
            before = self._account.spending.run_with(run, delta=ceiling.delta)
            raise BudgetExhausted(
                f"data set {self._dataset!r}: run {run!r} has spent epsilon "
                f"{before:.4g}, this round would make it {after:.4g}, one run may "
                f"spend {bound} (per_run_epsilon) at delta {ceiling.delta}, "
                f"{ceiling.relation}; nothing was touched"
            )

    def _inherits(
        self, content: Content, before: Mapping[str, JSON] | None
    ) -> dict[str, JSON]:
        """Return what a new content's line says of the old one's spending."""
        if before is None or before["fingerprint"] == content.fingerprint:
            return {}
        if not self._ceiling.content_may_change:
            raise PolicyRefused(
                f"data set {self._dataset!r}: its rows are others than the ledger's "
                f"(fingerprint {content.fingerprint}, was {before['fingerprint']}), "
                "and the policy's privacy.content_changes is refuse: give the new "
                "rows an id of their own, or let the steward allow them"
            )
        of: dict[str, JSON] = {
            "fingerprint": before["fingerprint"],
            "reservations": len(self._account),
        }
        return {INHERITS: of}

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

    def _check_round(
        self, round_id: RoundId, plan_digest: bytes, event: PrivacyEvent
    ) -> None:
        last = self._account.latest(round_id, event)
        if last is None:
            return
        where = f"round {round_id.number} of run {round_id.run!r}"
        state = self._account.state(last.seq)
        if state is not State.VOID:
            raise InputConflict(
                f"{where} is {state} already (ledger line {last.seq}); its "
                "answer is in the outbox or on its way, and no second one is made"
            )
        if last.plan_digest != plan_digest:
            raise InputConflict(
                f"{where} was reserved under another plan (ledger line {last.seq})"
            )
        lost = self._account.lost_in_a_row(round_id.run, event)
        if lost >= ATTEMPTS:
            raise AttemptsSpent(
                f"{where} was paid for before (last in ledger line {last.seq}) and "
                f"nothing of it was kept. That was so {lost} times in a row in this "
                f"run, at most {ATTEMPTS}: no more tries, and the charges stay. See "
                "why the process ended each time (shelf's disk, memory, training code) "
                "and mend it. The next round is tried, once until an answer is kept"
            )

    def _settle(
        self, reservation: Reservation, action: str, detail: dict[str, JSON]
    ) -> None:
        state = self._account.state(reservation.seq)
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
        self._account.replay(record)
        return record
