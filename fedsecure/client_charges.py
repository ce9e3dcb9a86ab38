"""What a site pays before a row is read: reservations of a round, and their ends.

The one door to a data set's budget on the way to its rows, so that nothing can be made
of them that no line of the ledger allows (PRIVACY.md section 10).
"""

import hashlib
from collections.abc import Mapping

from fedsecure.errors import PolicyRefused
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
    ) -> Reservation | None:
        """Pay for a pass over the training rows; None where nothing is promised.

        Parameters
        ----------
        units : int
            What delta is compared with: rows, or persons.

        Raises
        ------
        BudgetExhausted, InputConflict, LedgerCorrupt, PolicyRefused
            Nothing was touched.
        ConfigurationError
            Delta is too large for the rows.
        """
        if plan.privacy is None:
            return None
        self._witness.require()
        plan.privacy.check_rows(units)
        event = plan.event(layout.num_parameters)
        return self._budget(plan).reserve(
            round_id, plan.digest, event, plan.privacy.mode.unit
        )

    def settle(self, plan: RunPlan, reservation: Reservation | None, to: Kept) -> None:
        """Record that the answer which was paid for lies in the outbox."""
        if reservation is not None:
            # The head names the body by its digest: one hash stands for both.
            digest = hashlib.sha256(to.head.to_bytes()).digest()
            self._budget(plan).commit(reservation, digest)

    def _budget(self, plan: RunPlan) -> Budget:
        budget = self._budgets.get(plan.dataset)
        if budget is None:
            raise PolicyRefused(f"data set {plan.dataset!r} has no budget at this site")
        return budget
