"""Which request to train a site admits: all that must hold before a row is read.

The last step is the charge. Whatever can be known before it is asked before it, so that
nothing is paid for an answer that cannot come about (docs/adr/0033).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedsecure import parts
from fedsecure.client_charges import Charges
from fedsecure.client_run import ClientRun, ClientRuns, Identity
from fedsecure.envelope import Kind, Verified, verify_head
from fedsecure.errors import (
    InputConflict,
    ReleaseMissing,
    RoundOver,
    VerificationError,
)
from fedsecure.onesum import OneSum
from fedsecure.pledge import pledge_bytes
from fedsecure.privacy.account import Reservation
from fedsecure.shelf import Kept
from fedsecure.trainer import JSON
from fedsecure.update import Layout, RoundId, Vector, model_digest
from fedsecure.updateform import update_form

_FLOAT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed every check and is paid for."""

    round: RoundId
    run: ClientRun
    after: int
    layout: Layout
    model: Vector
    input_digest: bytes
    reservations: tuple[Reservation, ...]


class Admission:
    """A site's checks of requests to train.

    Parameters
    ----------
    me : Identity
    runs : ClientRuns
    sums : OneSum
        What was opened here.
    charges : Charges
        The last step.
    """

    def __init__(
        self, me: Identity, runs: ClientRuns, sums: OneSum, charges: Charges
    ) -> None:
        self._me, self._runs = me, runs
        self._sums, self._charges = sums, charges

    def admit(self, request: Verified, rows: int) -> Admitted | Kept:
        """Check a request to train and pay for it.

        Returns
        -------
        Admitted or Kept
            What is kept is the stored answer: this round was answered before.

        Raises
        ------
        InputConflict
            Answered before on another input, or it starts from another release.
        ReleaseMissing
            The release it starts from was not opened here yet.
        RoundOver
            The round's own release was opened here, or a later one's.
        NoRoom
            Its answer would not fit on the shelf; nothing was touched.
        AttemptsSpent
            It was paid for before, and too often in a row nothing was kept.
        BudgetExhausted
            The data set's budget does not allow it; nothing was touched.
        """
        round_id = request.scope.round
        run, given = self._runs.get(round_id.run), _digest(request.header, "input")
        known = run.shelf.answer(round_id.number)
        if known is not None:
            return self._same_input(known, given)
        self._require_open(round_id)
        after = parts.count(request.header, "after")
        layout, model = self.start(run, request.header)
        run.shelf.require_room(round_id.number, _need(run, round_id, layout))
        paid = self._charges.training(run.plan, round_id, layout, rows)
        return Admitted(round_id, run, after, layout, model, given, paid)

    def start(
        self, run: ClientRun, header: Mapping[str, JSON]
    ) -> tuple[Layout, Vector]:
        """Return the model a request starts from, if this site opened the same.

        Raises
        ------
        ReleaseMissing
            It was not opened here yet.
        InputConflict
            Another one was.
        """
        after = parts.count(header, "after")
        layout, model = run.shelf.layout(), run.shelf.model(after)
        if layout is None or model is None:
            raise ReleaseMissing(f"the release of round {after} was not opened here")
        opened = self._sums.digest(run.plan.run, after)
        ours = opened if after else model_digest(model)
        if _digest(header, "input") != ours:
            raise InputConflict(f"another release of round {after} was opened here")
        return layout, model

    def own(self, kept: Kept) -> Mapping[str, JSON]:
        """Return the header of an own update; its body stays where it is.

        Raises
        ------
        VerificationError
            It is not this site's.
        """
        return verify_head(kept.head, self._me.signing.public, kinds=(Kind.UPDATE,))

    def _require_open(self, round_id: RoundId) -> None:
        """Refuse an old letter: releases are in order, and so are rounds."""
        newest = self._sums.newest(round_id.run)
        if newest >= round_id.number:
            raise RoundOver(
                f"round {round_id.number} of {round_id.run}: the release of round "
                f"{newest} was opened here, so no update of it is needed any more; "
                "nothing was paid"
            )

    def _same_input(self, known: Kept, given: bytes) -> Kept:
        if _digest(self.own(known), "input") != given:
            before = known.head.scope.round
            raise InputConflict(
                f"round {before.number} of {before.run} was answered on another input; "
                "it is never trained again"
            )
        known.check()
        return known


def _need(run: ClientRun, round_id: RoundId, layout: Layout) -> int:
    """Return the bytes that a round puts on the shelf.

    The update, as long as its form says; what quantising leaves of it; the next model.

    Raises
    ------
    KeyMissing, KeyEnded
        There is no key to answer under; nothing is paid for either.
    """
    plan, parameters = run.plan, layout.num_parameters
    key = run.keys.of(round_id.number)
    size = update_form(plan, run.scheme, key, parameters, layout).size
    if plan.encryption.masked:
        size += pledge_bytes(len(plan.sites))
    return size + 2 * _FLOAT_BYTES * (parameters + 1)


def _digest(header: Mapping[str, JSON], name: str) -> bytes:
    try:
        return bytes.fromhex(parts.text(header, name))
    except ValueError as bad:
        raise VerificationError(f"message field {name!r} is not hexadecimal") from bad
