"""A site's half of a round: admit a request, protect the update, recover the sum.

Read `answer` first: it is the whole half, in order. Nothing here may be skipped or
re-ordered without reading PRIVACY.md section 10 and RESILIENCE.md section 7: what must
be durable before the next step is written before the next step.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from fedsecure import parts
from fedsecure.client_admission import Admission, Admitted
from fedsecure.client_carried import Carried, patience
from fedsecure.client_charges import Charges
from fedsecure.client_door import Door
from fedsecure.client_masks import ClientMasks
from fedsecure.client_quantiser import residual, round_quantiser
from fedsecure.client_refusals import Refusals
from fedsecure.client_report import Reports
from fedsecure.client_run import ClientRun, ClientRuns, Gate, Identity, Peers
from fedsecure.client_sum import opened_model
from fedsecure.client_update import encrypt
from fedsecure.envelope import (
    Envelope,
    Head,
    Kind,
    Scope,
    Verified,
    parse,
    read_head,
    verify,
)
from fedsecure.errors import (
    AlreadyExists,
    FedsecureError,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.ledger import Ledger
from fedsecure.onesum import OneSum
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.budget import Budget
from fedsecure.receipts import HEADS
from fedsecure.release import read_release
from fedsecure.runplan import RunPlan
from fedsecure.shelf import Kept
from fedsecure.stores import Store
from fedsecure.trainer import JSON, Trainer, TrainingResult, TrainingTask
from fedsecure.update import ModelUpdate, RoundId, Vector
from fedsecure.witness import Witness


class ClientRound:
    """One site's half of every round it is asked for; one request at a time.

    Parameters
    ----------
    me : Identity
    peers : Peers
        The roster.
    gate : Gate
        The site's policy.
    ledger : Ledger
        The site's own signed diary.
    budgets : mapping of str to Budget
        By data set; a private run on a data set without a budget is refused.
    store : Store
        Shelves of all runs.
    random : callable
        n -> n bytes of the system's generator.
    max_bytes : int
        Largest message that is read.
    """

    def __init__(
        self,
        me: Identity,
        peers: Peers,
        gate: Gate,
        ledger: Ledger,
        budgets: Mapping[str, Budget],
        store: Store,
        random: Callable[[int], bytes],
        *,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._me = me
        self._peers = peers
        self._gate = gate
        self._ledger = ledger
        self._max_bytes = max_bytes
        self._runs = ClientRuns(
            me, peers, gate, ledger, store, random, max_bytes=max_bytes
        )
        self._sums = OneSum(me.site, ledger)
        self._witness = Witness(me, peers, ledger, budgets)
        self._door = Door(me, peers, ledger, self._witness)
        self._charges = Charges(budgets, self._witness)
        self._admission = Admission(me, self._runs, self._sums, self._charges)
        self._reports = Reports(me, self._charges, self._witness, random)
        self._masks = ClientMasks(me, peers, self._sums, random)
        self._carried = Carried()
        self._refusals = Refusals(me)

    def close(self) -> None:
        """Let another process open the site's ledger."""
        self._ledger.close()

    # --- the whole half -------------------------------------------------------------

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        """Return the site's answer to one message: a refusal rather than an error.

        What lies in the outbox is read from there while it is sent.

        Raises
        ------
        StorageError
            The site's own disk failed. Nothing is retried in place: the process ends,
            and the next one goes on from what is durable (RESILIENCE section 9).
        """
        scope = Scope(RoundId("", 0), self._me.site, b"", b"", b"")
        try:
            request = parse(data, self._max_bytes)
            if request.kind == Kind.RELEASE:
                return self._take_brought(request)
            verified = self._door.checked(request)
            scope = verified.scope
            return self._reply(verified, trainer)
        except (NotFound, AlreadyExists) as no:
            return self._refusals.of(scope, no)
        except StorageError:
            raise
        except (FedsecureError, OSError) as no:
            return self._refusals.of(scope, no)

    def patience(self, data: bytes) -> float:
        """Return how long a message should wait for a release that is on its way here.

        Seconds; 0: `answer` it now, if only with a refusal.
        """
        try:
            if read_head(data)[0].kind != Kind.REQUEST:
                return 0.0
            request = self._door.checked(parse(data, self._max_bytes))
            run, after = request.scope.round.run, parts.count(request.header, "after")
        except FedsecureError:
            return 0.0
        opened = not after or self._sums.digest(run, after) is not None
        return 0.0 if opened else patience(request.header)

    def _reply(self, request: Verified, trainer: Trainer) -> Outgoing:
        run = self._runs.join(request)
        if request.kind == Kind.BEGIN_REQUEST:
            return self._runs.begin(run, request, trainer).outgoing
        if request.kind == Kind.UNMASK_REQUEST:
            self._runs.take(run, request, [])
            return self._reveal(run, request)
        pieces = parts.split(request)
        self._runs.take(run, request, pieces)
        for _, release in (piece for piece in pieces if piece[0] == "release"):
            self.recover(parse(release, self._max_bytes))
        if request.header.get("train") is False:
            return self._report(run, request, trainer)
        admitted = self.admit(request, _units(run.plan, trainer))
        if isinstance(admitted, Kept):
            return admitted.outgoing
        return self.protect(admitted, trainer.run(_task(admitted))).outgoing

    # --- admit ----------------------------------------------------------------------

    def admit(self, request: Verified, rows: int) -> Admitted | Kept:
        """Check a request to train and pay for it; see `Admission.admit`."""
        return self._admission.admit(request, rows)

    # --- protect --------------------------------------------------------------------

    def protect(self, admitted: Admitted, result: TrainingResult) -> Kept:
        """Quantise, tag, encrypt and sign an update, and keep it, piece by piece.

        Nothing leaves before the outbox holds all of it.

        Raises
        ------
        PolicyRefused
            The update is longer than the policy's norm bound.
        VerificationError
            Training returned another layout, or other noisy steps than were paid for.
        """
        run, plan = admitted.run, admitted.run.plan
        update = _checked_update(admitted, result)
        if not plan.shared_noise:  # where it is, the norm is the noise's
            self._gate.check_norm(plan, float(np.linalg.norm(update.delta)))
        masks = self._masks.make(run, admitted.round)
        mask = None if masks is None else masks.stream
        how = round_quantiser(run, admitted.round, admitted.after)
        sealed = encrypt(
            run,
            admitted.round,
            update,
            fixed=how.fixed,
            rng=how.rng,
            carry=how.carry,
            mask=mask,
        )
        behind = () if masks is None else (masks.pledge.to_bytes(),)

        def seal(size: int, sha256: str) -> Head:
            header: dict[str, JSON] = {"input": admitted.input_digest.hex()}
            header[HEADS] = self._witness.document()
            header |= self._carried.header(plan.run)
            told = self._reports.of_round(plan, result.metrics, sealed.saturated)
            if told is not None:
                header["metrics"] = told
            scope = run.scope(admitted.round)
            return self._me.sign_head(Kind.UPDATE, scope, header, (size, sha256))

        pieces = itertools.chain(sealed.chunks(), behind)
        kept = run.shelf.keep_answer(admitted.round.number, pieces, seal)
        self._charges.settle(plan, admitted.reservations, kept)
        return kept

    # --- recover --------------------------------------------------------------------

    def recover(self, envelope: Envelope) -> Vector:
        """Open a round's sum, once, and return the model after it.

        Raises
        ------
        SecondAggregate
            Another sum of this round was opened before.
        ReleaseMissing
            The release it builds on was not opened yet.
        TooFewContributors
            Fewer sites than the plan allows, or a stranger among them.
        PolicyRefused
            The policy does not allow the run any more.
        VerificationError
            Of a run never joined here. Or signature, key, tags: not the sum of
            exactly these sites' updates.
        """
        signer = self._peers.aggregator(envelope.signer)
        message = verify(envelope, signer, kinds=(Kind.RELEASE,))
        run = self._runs.rejoin(message.scope.round.run)
        message.require(run.scope(message.scope.round, site="*"))
        release = read_release(message)
        own = partial(self._sent, run, release.round)
        self._sums.open(run, release, own, self._door.seen(run.plan.run))
        return opened_model(run, release, message.body)

    def _take_brought(self, release: Envelope) -> Outgoing:
        """Open a release a standby brings: it is its leader's, whoever carries it."""
        self.recover(release)
        round_id = release.scope.round  # as it was signed: `recover` saw to that
        self._carried.came(round_id)
        scope = self._runs.get(round_id.run).scope(round_id)
        opened = self._me.sign(Kind.OPENED, scope, {}, b"")
        return Outgoing.of(opened.to_bytes())

    def _reveal(self, run: ClientRun, request: Verified) -> Outgoing:
        """Give this site's shares of what takes the masks off a closed round's sum."""
        own = partial(self._sent, run, request.scope.round)
        heads = self._witness.document
        term = self._door.seen(run.plan.run)
        return Outgoing.of(self._masks.reveal(run, request, own, term, heads))

    def _sent(self, run: ClientRun, round_id: RoundId) -> bytes | None:
        """Return the digest of this site's update of a round, or None."""
        mine = run.shelf.answer(round_id.number)
        if mine is None:
            return None
        self._admission.own(mine)
        return mine.head.digest()

    # --- small steps ----------------------------------------------------------------

    def _report(self, run: ClientRun, request: Verified, trainer: Trainer) -> Outgoing:
        """Evaluate the last model without training; metrics leave under the plan."""
        start = partial(self._admission.start, run, request.header)
        units = partial(_units, run.plan, trainer)

        def ended() -> None:
            if request.scope.round.number > run.plan.rounds:
                run.keys.retire_all()
                residual(run).forget()

        return self._reports.last(run, request, start, trainer, units, ended)


def _task(admitted: Admitted) -> TrainingTask:
    settings = admitted.run.plan.settings
    return TrainingTask(
        admitted.round, admitted.layout, admitted.model, settings, train=True
    )


def _units(plan: RunPlan, trainer: Trainer) -> int:
    """Return what delta is compared with: rows, or users where they are the unit."""
    rows, privacy = trainer.rows(), plan.privacy
    return rows if privacy is None else privacy.mode.units(rows, trainer.users())


def _checked_update(admitted: Admitted, result: TrainingResult) -> ModelUpdate:
    update, privacy = result.update, admitted.run.plan.privacy
    if update is None or update.layout != admitted.layout:
        raise VerificationError("training returned another layout than the model's")
    paid = 0 if privacy is None else privacy.steps_per_round
    if result.dp_steps != paid:
        raise VerificationError(
            f"training took {result.dp_steps} noisy steps, {paid} were paid for"
        )
    return update
