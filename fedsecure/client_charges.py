"""What a site pays before a row is read: reservations of a round, and their ends.

The one door to a data set's budget on the way to its rows, so that nothing can be made
of them that no line of the ledger allows (PRIVACY.md section 10).
"""

import hashlib
from collections.abc import Iterable, Mapping

from fedsecure.accounting import PrivacyEvent
from fedsecure.errors import ConfigurationError, FedsecureError, PolicyRefused
from fedsecure.privacy.account import Reservation
from fedsecure.privacy.budget import Budget
from fedsecure.runplan import RunPlan
from fedsecure.shelf import Kept
from fedsecure.update import Layout, RoundId
from fedsecure.witness import Witness


class Charges:
    """Reserves on the budgets of a site.

    Parameters
    ----------
    budgets : mapping of str to Budget
        By data set; a private run on a data set without a budget is refused.
    witness : Witness
        Asked first: nothing is reserved on a ledger that nobody vouches for.
    """

    def __init__(self, budgets: Mapping[str, Budget], witness: Witness) -> None:
        self._budgets, self._witness = budgets, witness

    def training(
        self, plan: RunPlan, round_id: RoundId, layout: Layout, units: int
    ) -> tuple[Reservation, ...]:
        """Pay for a pass over the training rows, and for the counts it tells beside.

        Parameters
        ----------
        units : int
            What delta is compared with: rows, or persons.

        Returns
        -------
        tuple of Reservation
            Empty where nothing is promised.

        Raises
        ------
        BudgetExhausted, InputConflict, LedgerCorrupt, PolicyRefused
            Nothing was touched.
        ConfigurationError
            Delta is too large for the rows.
        """
        if plan.privacy is None:
            return ()
        event = plan.event(layout.num_parameters)
        paid = self._reserve(plan, round_id, event, units)
        if plan.counts is None or not plan.counts.each_round:
            return (paid,)
        try:
            return paid, self._reserve(plan, round_id, plan.counts.event(), units)
        except FedsecureError:
            self.void(plan, paid, "no budget for the round's counts; no row was read")
            raise

    def counts(self, plan: RunPlan, round_id: RoundId, units: int) -> Reservation:
        """Pay for counts alone, told of the last model.

        Raises
        ------
        BudgetExhausted, InputConflict, LedgerCorrupt, PolicyRefused
            Nothing was touched.
        ConfigurationError
            The plan releases none, or delta is too large for the rows.
        """
        if plan.counts is None:
            raise ConfigurationError(f"run {plan.run} releases no counts")
        return self._reserve(plan, round_id, plan.counts.event(), units)

    def settle(self, plan: RunPlan, paid: Iterable[Reservation], answer: Kept) -> None:
        """Record that the answer which was paid for lies in the outbox."""
        # The head names the body by its digest: one hash stands for both.
        digest = hashlib.sha256(answer.head.to_bytes()).digest()
        for reservation in paid:
            self._budget(plan).commit(reservation, digest)

    def void(self, plan: RunPlan, paid: Reservation, reason: str) -> None:
        """Record that nothing left for a reservation; the charge stays."""
        self._budget(plan).void(paid, reason)

    def _reserve(
        self, plan: RunPlan, round_id: RoundId, event: PrivacyEvent, units: int
    ) -> Reservation:
        if plan.privacy is None:
            raise ConfigurationError(f"run {plan.run} is in privacy mode none")
        self._witness.require()
        plan.privacy.check_rows(units)
        unit = plan.privacy.mode.unit
        return self._budget(plan).reserve(round_id, plan.digest, event, unit)

    def _budget(self, plan: RunPlan) -> Budget:
        budget = self._budgets.get(plan.dataset)
        if budget is None:
            raise PolicyRefused(f"data set {plan.dataset!r} has no budget at this site")
        return budget
