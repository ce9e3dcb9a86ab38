"""What a site tells of how well a model does: nothing, counts with noise, or all of it.

In a round it travels with the update; after the last one it is an answer of its own,
which under `dp` is paid for, drawn once, and kept like an update: the same request gets
the same bytes, and a crash in between costs a second charge, never a second draw for
one (PRIVACY.md sections 8 and 11).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedsecure.client_charges import Charges
from fedsecure.client_run import ClientRun, Identity
from fedsecure.envelope import Head, Kind, Verified, verify_head
from fedsecure.errors import FedsecureError, InputConflict
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.counts import CountsPlan
from fedsecure.receipts import HEADS
from fedsecure.runplan import RunPlan
from fedsecure.shelf import Kept
from fedsecure.trainer import JSON, Trainer, TrainingTask
from fedsecure.update import Layout, Vector
from fedsecure.witness import Witness

log = logging.getLogger(__name__)


class Reports:
    """A site's words on its models.

    Parameters
    ----------
    me : Identity
    charges : Charges
        Counts are paid for there.
    witness : Witness
        Its own head goes with every answer.
    random : callable
        n -> n bytes of the system's generator.
    """

    def __init__(
        self,
        me: Identity,
        charges: Charges,
        witness: Witness,
        random: Callable[[int], bytes],
    ) -> None:
        self._me, self._charges, self._witness = me, charges, witness
        self._source = _Source(random)

    def of_round(
        self, plan: RunPlan, told: Mapping[str, float], saturated: int
    ) -> dict[str, JSON] | None:
        """Return what goes with a round's update; None: nothing does.

        Under `dp` with fresh noise at every call, paid for with the round: call it once
        an answer, which is kept before it leaves.

        Parameters
        ----------
        told : mapping
            What the training code measured.
        saturated : int
            Coordinates cut by the quantiser; leaves in plain or not at all.
        """
        if plan.metrics == "plain":
            return {**told, "saturated": saturated}
        if plan.counts is None or not plan.counts.each_round:
            return None
        return self._release(plan.counts, told)

    def last(
        self,
        run: ClientRun,
        request: Verified,
        start: Callable[[], tuple[Layout, Vector]],
        trainer: Trainer,
        units: Callable[[], int],
        ended: Callable[[], None] = lambda: None,
    ) -> Outgoing:
        """Return the answer to a request that evaluates and does not train.

        Counts leave once a run, for the round after its last; asked for any other the
        answer tells nothing.

        Parameters
        ----------
        start : callable
            Returns layout and model that the request starts from, if they are here.
        units : callable
            Returns what delta is compared with.
        ended : callable
            Called once all is evaluated, before the answer says how long the ledger
            is: its last lines are known to the others then.

        Raises
        ------
        BudgetExhausted
            No counts are told; no test row was read.
        InputConflict
            Another model was told of before, or the round is somebody else's.
        NoRoom
            The answer would not fit on the shelf; no test row was read.
        """
        plan, number = run.plan, request.scope.round.number
        if plan.counts is not None and number == plan.rounds + 1:
            kept = self._once(run, request, start, trainer, units)
            ended()
            return kept.outgoing
        layout, model = start()
        metrics: dict[str, JSON] = {}
        if plan.metrics == "plain":
            metrics.update(trainer.run(_task(run, request, layout, model)).metrics)
        ended()
        header: dict[str, JSON] = {"metrics": metrics, HEADS: self._witness.document()}
        scope = run.scope(request.scope.round)
        return Outgoing.of(self._me.sign(Kind.REPORT, scope, header, b"").to_bytes())

    def _once(
        self,
        run: ClientRun,
        request: Verified,
        start: Callable[[], tuple[Layout, Vector]],
        trainer: Trainer,
        units: Callable[[], int],
    ) -> Kept:
        """Pay, read the test rows, add noise, keep; or return what was kept before."""
        plan, round_id = run.plan, request.scope.round
        asked = str(request.header.get("input"))
        known = run.shelf.answer(round_id.number)
        if known is not None:
            return self._again(known, asked)
        layout, model = start()
        run.shelf.require_room(round_id.number, 0)  # a head alone
        paid = self._charges.counts(plan, round_id, units())
        try:
            told = trainer.run(_task(run, request, layout, model)).metrics
        except FedsecureError:
            self._charges.void(plan, paid, "the last model was not evaluated")
            raise
        kept = self._keep(run, request, asked, told)
        self._charges.settle(plan, [paid], kept)
        return kept

    def _keep(
        self, run: ClientRun, request: Verified, asked: str, told: Mapping[str, float]
    ) -> Kept:
        counts, round_id = run.plan.counts, request.scope.round
        metrics = {} if counts is None else self._release(counts, told)
        header: dict[str, JSON] = {
            "input": asked,
            "metrics": metrics,
            HEADS: self._witness.document(),
        }
        scope = run.scope(round_id)

        def seal(size: int, sha256: str) -> Head:
            return self._me.sign_head(Kind.REPORT, scope, header, (size, sha256))

        return run.shelf.keep_answer(round_id.number, (), seal)

    def _again(self, known: Kept, asked: str) -> Kept:
        scope = known.head.scope
        where = f"round {scope.round.number} of {scope.round.run}"
        if known.head.kind != Kind.REPORT:
            raise InputConflict(f"{where} was trained here: no counts are told of it")
        own = verify_head(known.head, self._me.signing.public, kinds=(Kind.REPORT,))
        if own.get("input") != asked:
            raise InputConflict(
                f"the counts of {where} were told of another model; no second ones are "
                "drawn"
            )
        known.check()
        return known

    def _release(
        self, counts: CountsPlan, told: Mapping[str, float]
    ) -> dict[str, JSON]:
        stay = sorted(set(told) - {"num_test", "accuracy"})
        if stay:
            log.info("metrics=dp: %s stay here, noisy counts leave", ", ".join(stay))
        return counts.release(told, self._source)


@dataclass(frozen=True, slots=True)
class _Source:
    """The system's generator, as the sampler asks it."""

    random: Callable[[int], bytes]

    def bytes(self, n: int) -> bytes:
        return self.random(n)


def _task(
    run: ClientRun, request: Verified, layout: Layout, model: Vector
) -> TrainingTask:
    settings = run.plan.settings
    return TrainingTask(request.scope.round, layout, model, settings, train=False)
