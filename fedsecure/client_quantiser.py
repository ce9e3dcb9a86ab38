"""A site's quantiser of one round: ranges agreed before it, rounding, the residual.

Ranges follow from the last opened sum, so they are kept when a sum is opened, before
the model after it is: where a model lies on the shelf, the ranges of the rounds that
build on it do too, and the model before may go (ENCRYPTION.md section 6).
"""

from dataclasses import dataclass

import numpy as np

from fedsecure.client_run import ClientRun
from fedsecure.errors import PolicyRefused, VerificationError
from fedsecure.quantiser import FixedPoint
from fedsecure.ranges import FLOOR, Ranges
from fedsecure.residual import Carry, Residual
from fedsecure.update import RoundId, Vector


@dataclass(frozen=True, slots=True)
class RoundQuantiser:
    """How one round's update becomes integers.

    Attributes
    ----------
    fixed : FixedPoint
        With the round's ranges.
    rng : Generator or None
        For stochastic rounding; None: to the nearest step.
    carry : Carry or None
        What the last answer left, and what this one leaves; None: no feedback.
    """

    fixed: FixedPoint
    rng: np.random.Generator | None = None
    carry: Carry | None = None


def round_quantiser(run: ClientRun, round_id: RoundId, after: int) -> RoundQuantiser:
    """Return the quantiser of a round that is encoded now, for the first time.

    Parameters
    ----------
    after : int
        The round whose model the round builds on.

    Raises
    ------
    PolicyRefused
        The plan claims an epsilon and rounds by chance or carries a residual: neither
        is in its accountant. The plan's reader refuses it first.
    """
    chosen = run.plan.encryption
    if run.plan.privacy is not None and (
        chosen.error_feedback or chosen.rounding != "nearest"
    ):
        raise PolicyRefused(
            f"run {run.plan.run} claims an epsilon: encryption.rounding="
            f"{chosen.rounding} and error_feedback={chosen.error_feedback} must be "
            "nearest and false"
        )
    rng = None
    if chosen.rounding == "stochastic":
        # Of plan, round and site: a run that is repeated ends in the same bits, and no
        # claim of privacy rests on this chance (`FixedPoint.quantize`).
        place = run.plan.sites.index(run.site)
        rng = np.random.default_rng([run.plan.seed, round_id.number, place])
    carry = residual(run).begin(round_id.number) if chosen.error_feedback else None
    return RoundQuantiser(agreed(run, after), rng, carry)


def residual(run: ClientRun) -> Residual:
    """Return what quantising took from this site's updates of a run."""
    shelf = run.shelf
    return Residual(shelf.store, shelf.run, lambda n: shelf.answer(n) is not None)


def agreed(run: ClientRun, after: int) -> FixedPoint:
    """Return the quantiser, with its ranges, of rounds that build on a model.

    Every site that opened the release of round `after` has the same ranges, and a
    request names that release by its digest: no two sites of a sum differ.

    Raises
    ------
    VerificationError
        The ranges are not on the shelf, where they were put before the model.
    """
    fixed = run.plan.fixed
    if run.plan.shared_noise:
        layout = run.shelf.layout()
        return run.plan.wholes(0 if layout is None else layout.num_parameters)
    if run.plan.encryption.range_from == "config" or not after:
        return fixed
    ranges = run.shelf.ranges(after)
    if ranges is None:
        raise VerificationError(f"the ranges after round {after} are not on the shelf")
    return fixed.within(ranges)


def agree(run: ClientRun, number: int, before: Vector, after: Vector) -> None:
    """Keep the ranges of rounds that will build on the model after round `number`.

    To be called before that model is kept; a repeat after a crash keeps the same.

    Raises
    ------
    NotFinite
        The sum holds NaN or Inf.
    """
    if run.plan.encryption.range_from == "config":
        return
    layout, cap = run.shelf.layout(), run.plan.fixed.clip
    if layout is None:
        raise VerificationError(f"run {run.plan.run} has no layout on the shelf")
    multiple = run.plan.encryption.range_multiple
    ranges = Ranges.from_aggregate(layout, before, after, multiple, cap * FLOOR, cap)
    run.shelf.keep_ranges(number, ranges)
