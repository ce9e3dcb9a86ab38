"""A site's half of a round: admit a request, protect the update, recover the sum.

Read `answer` first: it is the whole half, in order. Nothing here may be skipped or
re-ordered without reading PRIVACY.md section 10 and RESILIENCE.md section 7: what must
be durable before the next step is written before the next step.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedsecure import parts
from fedsecure.client_run import ClientRun, ClientRuns, Gate, Identity, Peers
from fedsecure.client_update import encrypt, open_sum
from fedsecure.envelope import Envelope, Kind, Scope, Verified, parse, verify
from fedsecure.errors import (
    FedsecureError,
    InputConflict,
    PolicyRefused,
    ReleaseMissing,
    SecondAggregate,
    StaleTerm,
    TooFewContributors,
    VerificationError,
)
from fedsecure.ledger import Ledger
from fedsecure.privacy.budget import Budget, Reservation
from fedsecure.release import Release, read_release
from fedsecure.runplan import RunPlan
from fedsecure.stores import Store
from fedsecure.trainer import JSON, Trainer, TrainingResult, TrainingTask
from fedsecure.update import Layout, ModelUpdate, RoundId, Vector

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed every check and is paid for."""

    round: RoundId
    run: ClientRun
    layout: Layout
    model: Vector
    input_digest: bytes
    reservation: Reservation | None


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
        self._budgets = budgets
        self._max_bytes = max_bytes
        self._runs = ClientRuns(
            me, peers, gate, ledger, store, random, max_bytes=max_bytes
        )
        self._term = max((r.term for r in ledger.records()), default=0)
        self._opened = {
            (r.run, r.round): bytes.fromhex(str(r.detail["release"]))
            for r in ledger.records()
            if r.action == "aggregate.opened"
        }

    def close(self) -> None:
        """Let another process open the site's ledger."""
        self._ledger.close()

    # --- the whole half -------------------------------------------------------------

    def answer(self, data: bytes, trainer: Trainer) -> bytes:
        """Return the site's answer to one message: a refusal rather than an error."""
        scope = Scope(RoundId("", 0), self._me.site, b"", b"", b"")
        try:
            request = parse(data, self._max_bytes)
            verified = self._checked(request)
            scope = verified.scope
            return self._reply(verified, trainer)
        except (FedsecureError, OSError) as no:
            return self._refusal(scope, no)

    def _reply(self, request: Verified, trainer: Trainer) -> bytes:
        run = self._runs.join(request)
        if request.kind == Kind.BEGIN_REQUEST:
            return self._runs.begin(run, request, trainer)
        pieces = parts.split(request)
        self._runs.take(run, request, pieces)
        for _, release in (piece for piece in pieces if piece[0] == "release"):
            self.recover(parse(release, self._max_bytes))
        if request.header.get("train") is False:
            return self._report(run, request, trainer)
        admitted = self.admit(request, trainer.rows())
        if isinstance(admitted, bytes):
            return admitted
        return self.protect(admitted, trainer.run(_task(admitted)))

    # --- admit ----------------------------------------------------------------------

    def admit(self, request: Verified, rows: int) -> Admitted | bytes:
        """Check a request to train and pay for it.

        Returns
        -------
        Admitted or bytes
            Bytes are the stored answer: this round was answered before.

        Raises
        ------
        InputConflict
            Answered before on another input, or it starts from another release.
        ReleaseMissing
            The release it starts from was not opened here yet.
        BudgetExhausted
            The data set's budget does not allow it; nothing was touched.
        """
        round_id = request.scope.round
        run, given = self._runs.get(round_id.run), _digest(request.header, "input")
        known = run.shelf.answer(round_id.number)
        if known is not None:
            return self._same_input(known, given)
        layout, model = self._model_after(run, request.header)
        reservation = self._reserve(run.plan, round_id, rows)
        return Admitted(round_id, run, layout, model, given, reservation)

    def _same_input(self, known: bytes, given: bytes) -> bytes:
        before = self._own(known)
        if _digest(before.header, "input") != given:
            raise InputConflict(
                f"round {before.scope.round.number} of {before.scope.round.run} was "
                "answered on another input; it is never trained again"
            )
        return known

    def _model_after(
        self, run: ClientRun, header: Mapping[str, JSON]
    ) -> tuple[Layout, Vector]:
        """Return the model a request starts from, if this site opened the same."""
        after = parts.count(header, "after")
        layout, model = run.shelf.layout(), run.shelf.model(after)
        if layout is None or model is None:
            raise ReleaseMissing(f"the release of round {after} was not opened here")
        ours = self._opened[run.plan.run, after] if after else model_digest(model)
        if _digest(header, "input") != ours:
            raise InputConflict(f"another release of round {after} was opened here")
        return layout, model

    def _reserve(
        self, plan: RunPlan, round_id: RoundId, rows: int
    ) -> Reservation | None:
        if plan.privacy is None:
            return None
        plan.privacy.check_rows(rows)
        event = plan.privacy.event()
        return self._budget(plan).reserve(round_id, plan.digest, event)

    def _budget(self, plan: RunPlan) -> Budget:
        budget = self._budgets.get(plan.dataset)
        if budget is None:
            raise PolicyRefused(f"data set {plan.dataset!r} has no budget at this site")
        return budget

    # --- protect --------------------------------------------------------------------

    def protect(self, admitted: Admitted, result: TrainingResult) -> bytes:
        """Quantise, tag, encrypt and sign an update; keep it; return its bytes.

        Nothing leaves before the outbox holds it.

        Raises
        ------
        PolicyRefused
            The update is longer than the policy's norm bound.
        VerificationError
            Training returned another layout, or other noisy steps than were paid for.
        """
        run, plan = admitted.run, admitted.run.plan
        update = _checked_update(admitted, result)
        self._gate.check_norm(plan, float(np.linalg.norm(update.delta)))
        sealed = encrypt(run, admitted.round, update)
        body = b"".join(sealed.chunks())
        header: dict[str, JSON] = {"input": admitted.input_digest.hex()}
        if plan.metrics == "plain":
            header["metrics"] = {**result.metrics, "saturated": sealed.saturated}
        answer = self._me.sign(Kind.UPDATE, run.scope(admitted.round), header, body)
        data = answer.to_bytes()
        run.shelf.keep_answer(admitted.round.number, data)
        if admitted.reservation is not None:
            digest = hashlib.sha256(data).digest()
            self._budget(plan).commit(admitted.reservation, digest)
        return data

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
        VerificationError
            Signature, key, tags: not the sum of exactly these sites' updates.
        """
        signer = self._peers.aggregator(envelope.signer)
        message = verify(envelope, signer, kinds=(Kind.RELEASE,))
        run = self._runs.get(message.scope.round.run)
        message.require(run.scope(message.scope.round, site="*"))
        release = read_release(message)
        self._may_open(run, release)
        known = run.shelf.model(release.round.number)
        if known is not None:
            return known
        before = run.shelf.model(release.after)
        if before is None:
            raise ReleaseMissing(f"open the release of round {release.after} first")
        model = before + open_sum(run, release, message.body, before.size)
        run.shelf.keep_model(release.round.number, model)
        run.shelf.forget_models(release.after)
        return model

    def _may_open(self, run: ClientRun, release: Release) -> None:
        key, digest = (run.plan.run, release.round.number), release.digest()
        opened = self._opened.get(key)
        if opened == digest:
            return
        detail: dict[str, JSON] = {
            "release": digest.hex(),
            "sites": len(release.participants),
        }
        if opened is not None:
            self._record("aggregate.second", release, SecondAggregate.code, detail)
            raise SecondAggregate(
                f"round {key[1]} was opened as {opened.hex()[:12]}; "
                f"{digest.hex()[:12]} is refused"
            )
        self._check_participants(run, release)
        if release.after and (run.plan.run, release.after) not in self._opened:
            raise ReleaseMissing(f"open the release of round {release.after} first")
        self._record("aggregate.opened", release, "", detail)
        self._opened[key] = digest

    def _check_participants(self, run: ClientRun, release: Release) -> None:
        strangers = sorted(set(release.sites) - set(run.plan.sites))
        if strangers or len(release.sites) < run.plan.min_contributors:
            raise TooFewContributors(
                f"round {release.round.number}: {len(release.sites)} contributors, at "
                f"least {run.plan.min_contributors}; strangers: {strangers}"
            )
        own = dict(release.participants).get(self._me.site)
        mine = run.shelf.answer(release.round.number)
        if own is not None and (mine is None or self._own(mine).digest != own):
            raise VerificationError("the release counts an update this site never sent")

    def _record(
        self, action: str, release: Release, code: str, detail: Mapping[str, JSON]
    ) -> None:
        self._ledger.append(
            action,
            release.round.run,
            run=release.round.run,
            round=release.round.number,
            term=self._term,
            outcome="refused" if code else "ok",
            code=code,
            detail=detail,
        )

    # --- small steps ----------------------------------------------------------------

    def _checked(self, envelope: Envelope) -> Verified:
        signer = self._peers.aggregator(envelope.signer)
        kinds = (Kind.BEGIN_REQUEST, Kind.REQUEST)
        request = verify(envelope, signer, kinds=kinds)
        if request.scope.site != self._me.site:
            raise VerificationError(f"message is for site {request.scope.site!r}")
        term = parts.count(request.header, "term")
        if term < self._term:
            raise StaleTerm(f"term {term}, this site has seen {self._term}")
        if term > self._term:
            self._ledger.append("term.seen", request.signer, term=term)
            self._term = term
        return request

    def _report(self, run: ClientRun, request: Verified, trainer: Trainer) -> bytes:
        """Evaluate the last model without training; metrics leave under the plan."""
        layout, model = self._model_after(run, request.header)
        metrics: dict[str, JSON] = {}
        if run.plan.metrics == "plain":
            round_id, settings = request.scope.round, run.plan.settings
            task = TrainingTask(round_id, layout, model, settings, train=False)
            metrics.update(trainer.run(task).metrics)
        scope = run.scope(request.scope.round)
        return self._me.sign(Kind.REPORT, scope, {"metrics": metrics}, b"").to_bytes()

    def _own(self, data: bytes) -> Verified:
        envelope = parse(data, self._max_bytes)
        return verify(envelope, self._me.signing.public, kinds=(Kind.UPDATE,))

    def _refusal(self, scope: Scope, reason: Exception) -> bytes:
        """Say no with a code only: the reason stays here (PRIVACY section 10)."""
        code = str(getattr(reason, "code", "failed"))
        log.warning("site %s refuses (%s): %s", self._me.site, code, reason)
        header: dict[str, JSON] = {"code": code, "term": self._term}
        return self._me.sign(Kind.REFUSAL, scope, header, b"").to_bytes()


def model_digest(model: Vector) -> bytes:
    """Return SHA-256 of a model's little-endian float64 bytes; 32 bytes."""
    return hashlib.sha256(model.astype("<f8").tobytes()).digest()


def _task(admitted: Admitted) -> TrainingTask:
    settings = admitted.run.plan.settings
    return TrainingTask(
        admitted.round, admitted.layout, admitted.model, settings, train=True
    )


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


def _digest(header: Mapping[str, JSON], name: str) -> bytes:
    try:
        return bytes.fromhex(parts.text(header, name))
    except ValueError as bad:
        raise VerificationError(f"message field {name!r} is not hexadecimal") from bad
