"""A site's half of a round: admit a request, protect the update, recover the sum.

Read `answer` first: it is the whole half, in order. Nothing here may be skipped or
re-ordered without reading PRIVACY.md section 10 and RESILIENCE.md section 7: what must
be durable before the next step is written before the next step.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedsecure import ciphertext, custody, parts, registry
from fedsecure.encoding import check_tags, pack, tags, unpack
from fedsecure.envelope import (
    Envelope,
    Kind,
    Scope,
    Verified,
    canonical,
    parse,
    sign,
    verify,
)
from fedsecure.errors import (
    FedsecureError,
    InputConflict,
    KeyMissing,
    PolicyRefused,
    ReleaseMissing,
    SecondAggregate,
    StaleTerm,
    TooFewContributors,
    VerificationError,
)
from fedsecure.he import Scheme, SecretKey
from fedsecure.keys import BoxKey, BoxPublic, SigningKey, VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.budget import Budget, Reservation
from fedsecure.release import Release, read_release
from fedsecure.runplan import RunPlan, plan_digest, read_plan
from fedsecure.shelf import Shelf, read_layout
from fedsecure.stores import Store
from fedsecure.trainer import JSON, Trainer, TrainingResult, TrainingTask
from fedsecure.update import Layout, ModelUpdate, RoundId, Vector

log = logging.getLogger(__name__)


class Peers(Protocol):
    """Whom the site knows: the verified roster, seen from a round."""

    def aggregator(self, name: str) -> VerifyKey:
        """Return an aggregator's signing key; VerificationError if it is not one."""
        ...

    def site(self, name: str) -> VerifyKey:
        """Return a site's signing key; VerificationError if it is not one."""
        ...

    def box(self, name: str) -> BoxPublic:
        """Return a site's box key; VerificationError if it is not one."""
        ...


class Gate(Protocol):
    """The site's policy, seen from a round."""

    def check(self, plan: RunPlan, layout: Layout | None) -> None:
        """Return only if the policy allows the plan; PolicyRefused otherwise."""
        ...

    def check_norm(self, plan: RunPlan, norm: float) -> None:
        """Return only if an update of this L2 norm may leave; PolicyRefused."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this site is."""

    federation: str
    site: str
    signing: SigningKey
    box: BoxKey


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed every check and is paid for."""

    round: RoundId
    plan: RunPlan
    layout: Layout
    model: Vector
    input_digest: bytes
    reservation: Reservation | None


@dataclass(slots=True)
class _Joined:
    """A run this site takes part in: its plan, its shelf, and its opened key."""

    plan: RunPlan
    shelf: Shelf
    scheme: Scheme
    key: SecretKey | None = None


class ClientRound:
    """One site's half of every round it is asked for; one request at a time.

    Parameters
    ----------
    identity : Identity
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
    max_bytes : int
        Largest message that is read.
    """

    def __init__(
        self,
        identity: Identity,
        peers: Peers,
        gate: Gate,
        ledger: Ledger,
        budgets: Mapping[str, Budget],
        store: Store,
        *,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._me = identity
        self._peers = peers
        self._gate = gate
        self._ledger = ledger
        self._budgets = budgets
        self._store = store
        self._max_bytes = max_bytes
        self._cabinet = custody.KeyCabinet(store, identity.box)
        self._runs: dict[str, _Joined] = {}
        self._term = max((r.term for r in ledger.records()), default=0)
        self._opened = {
            (r.run, r.round): bytes.fromhex(str(r.detail["release"]))
            for r in ledger.records()
            if r.action == "aggregate.opened"
        }

    # --- the whole half -------------------------------------------------------------

    def answer(self, data: bytes, trainer: Trainer) -> bytes:
        """Return the site's answer to one message: a refusal rather than an error."""
        scope = Scope(RoundId("", 0), self._me.site, b"", b"", b"")
        try:
            request = parse(data, self._max_bytes)
            scope = request.scope
            return self._reply(self._checked(request), trainer)
        except (FedsecureError, OSError) as no:
            return self._refusal(scope, no).to_bytes()

    def _reply(self, request: Verified, trainer: Trainer) -> bytes:
        run = self._join(request)
        if request.kind == Kind.BEGIN_REQUEST:
            return self._begin(run, request, trainer)
        pieces = parts.split(request)
        self._start(run, request, pieces)
        for _, release in (p for p in pieces if p[0] == "release"):
            self.recover(parse(release, self._max_bytes))
        if request.header.get("train") is False:
            return self._report(run, request, trainer)
        return self._contribute(request, trainer)

    def _contribute(self, request: Verified, trainer: Trainer) -> bytes:
        admitted = self.admit(request, trainer.rows())
        if isinstance(admitted, bytes):
            return admitted
        result = trainer.run(self._task(admitted, train=True))
        return self.protect(admitted, result)

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
            Answered before, on another input.
        ReleaseMissing
            An earlier release was not opened here yet.
        BudgetExhausted
            The data set's budget does not allow it; nothing was touched.
        """
        run = self._runs[request.scope.round.run]
        number, given = request.scope.round.number, _digest(request.header, "input")
        known = run.shelf.answer(number)
        if known is not None:
            return self._same_input(known, given)
        layout, model = self._model_after(run, request.header)
        reservation = self._reserve(run, request.scope.round, rows)
        return Admitted(
            request.scope.round, run.plan, layout, model, given, reservation
        )

    def _same_input(self, known: bytes, given: bytes) -> bytes:
        before = self._own(known)
        if _digest(before.header, "input") != given:
            raise InputConflict(
                f"round {before.scope.round.number} of {before.scope.round.run} was "
                "answered on another input; it is never trained again"
            )
        return known

    def _model_after(
        self, run: _Joined, header: Mapping[str, JSON]
    ) -> tuple[Layout, Vector]:
        """Return the model a request starts from, if this site opened the same."""
        after = parts.count(header, "after")
        layout, model = run.shelf.layout(), run.shelf.model(after)
        if layout is None or model is None:
            raise ReleaseMissing(f"the release of round {after} was not opened here")
        ours = self._opened[run.plan.run, after] if after else model_digest(model)
        if _digest(header, "input") != ours:
            raise InputConflict(
                f"the request starts from another release of round {after}"
            )
        return layout, model

    def _reserve(
        self, run: _Joined, round_id: RoundId, rows: int
    ) -> Reservation | None:
        if run.plan.privacy is None:
            return None
        run.plan.privacy.check_rows(rows)
        return self._budget(run.plan).reserve(
            round_id, run.plan.digest, run.plan.privacy.event()
        )

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
        NotFinite
            The update holds NaN or Inf.
        PolicyRefused
            The update is longer than the policy's norm bound.
        """
        update = result.update
        if update is None or update.layout != admitted.layout:
            raise VerificationError("training returned another layout than the model's")
        self._gate.check_norm(admitted.plan, float(np.linalg.norm(update.delta)))
        run = self._runs[admitted.round.run]
        body, saturated = self._encrypt(run, admitted, update)
        header: dict[str, JSON] = {"input": admitted.input_digest.hex()}
        if admitted.plan.metrics == "plain":
            header["metrics"] = {**result.metrics, "saturated": saturated}
        answer = self._sign(Kind.UPDATE, self._scope(run, admitted.round), header, body)
        data = answer.to_bytes()
        run.shelf.keep_answer(admitted.round.number, data)
        if admitted.reservation is not None:
            digest = hashlib.sha256(data).digest()
            self._budget(admitted.plan).commit(admitted.reservation, digest)
        return data

    def _encrypt(
        self, run: _Joined, admitted: Admitted, update: ModelUpdate
    ) -> tuple[bytes, int]:
        plan, key = admitted.plan, self._key(run)
        values = _weigh(plan, update.delta, update.num_examples)
        quantized = plan.fixed.quantize(values)
        encryptor = run.scheme.encryptor(key)
        blocks = pack(quantized.values, plan.profile, encryptor.slots)
        tag_key = custody.tag_key(key)
        blocks[:, -1] = tags(tag_key, admitted.round, self._me.site, len(blocks))
        return ciphertext.to_bytes(encryptor.encrypt(blocks)), quantized.saturated

    # --- recover --------------------------------------------------------------------

    def recover(self, envelope: Envelope) -> Vector:
        """Open a round's sum, once, and return the model after it.

        Raises
        ------
        SecondAggregate
            Another sum of this round was opened before.
        ReleaseMissing
            An earlier round was not opened yet.
        TooFewContributors
            Fewer sites than the plan allows, or a stranger among them.
        VerificationError
            Signature, key, tags: not the sum of exactly these sites' updates.
        """
        message = verify(
            envelope, self._peers.aggregator(envelope.signer), kinds=(Kind.RELEASE,)
        )
        run = self._runs[message.scope.round.run]
        message.require(self._scope(run, message.scope.round, site="*"))
        release = read_release(message)
        number = release.round.number
        self._may_open(run, release)
        known = run.shelf.model(number)
        if known is not None:
            return known
        before = run.shelf.model(release.after)
        if before is None:
            raise ReleaseMissing(f"round {number}: open round {release.after} first")
        model = before + self._open_sum(run, release, message.body, before.size)
        run.shelf.keep_model(number, model)
        run.shelf.forget_models(release.after)
        return model

    def _may_open(self, run: _Joined, release: Release) -> None:
        key, digest = (run.plan.run, release.round.number), release.digest()
        opened = self._opened.get(key)
        if opened is not None and opened != digest:
            self._ledger.append(
                "aggregate.second",
                run.plan.run,
                round=key[1],
                outcome="refused",
                run=run.plan.run,
                term=self._term,
                code=SecondAggregate.code,
                detail={"release": digest.hex(), "opened": opened.hex()},
            )
            raise SecondAggregate(
                f"round {key[1]} was opened as {opened.hex()[:12]}; "
                f"{digest.hex()[:12]} is refused"
            )
        if opened is not None:
            return
        self._check_participants(run, release)
        if release.after and (run.plan.run, release.after) not in self._opened:
            raise ReleaseMissing(f"round {key[1]}: open round {release.after} first")
        self._ledger.append(
            "aggregate.opened",
            run.plan.run,
            run=run.plan.run,
            round=key[1],
            term=self._term,
            detail={"release": digest.hex(), "sites": len(release.participants)},
        )
        self._opened[key] = digest

    def _check_participants(self, run: _Joined, release: Release) -> None:
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

    def _open_sum(
        self, run: _Joined, release: Release, body: bytes, size: int
    ) -> Vector:
        plan, key = run.plan, self._key(run)
        decryptor = run.scheme.decryptor(key)
        total = ciphertext.from_bytes(
            body, key_id=key.key_id, max_summands=plan.fixed.max_contributors
        )
        blocks = decryptor.decrypt(total)
        check_tags(blocks[:, -1], custody.tag_key(key), release.round, release.sites)
        length = size + (1 if plan.max_rows else 0)
        integers = unpack(blocks, plan.profile, length)
        values = plan.fixed.dequantize_sum(integers, 1)
        return _unweigh(plan, values, len(release.sites))

    # --- joining, the key, the first model ------------------------------------------

    def _checked(self, envelope: Envelope) -> Verified:
        request = verify(
            envelope,
            self._peers.aggregator(envelope.signer),
            kinds=(Kind.BEGIN_REQUEST, Kind.REQUEST),
        )
        if request.scope.site != self._me.site:
            raise VerificationError(f"message is for site {request.scope.site!r}")
        term = parts.count(request.header, "term")
        if term < self._term:
            raise StaleTerm(f"term {term}, this site has seen {self._term}")
        if term > self._term:
            self._ledger.append("term.seen", request.signer, term=term)
            self._term = term
        return request

    def _join(self, request: Verified) -> _Joined:
        name = request.scope.round.run
        run = self._runs.get(name)
        if run is None:
            run = self._runs[name] = self._enter(name, request)
        if request.scope.plan != run.plan.digest:
            raise PolicyRefused(f"run {name} was joined under another plan")
        return run

    def _enter(self, name: str, request: Verified) -> _Joined:
        document = request.header.get("plan")
        if (
            not isinstance(document, dict)
            or plan_digest(document) != request.scope.plan
        ):
            raise VerificationError("request does not carry the plan it is signed for")
        plan = read_plan(document)
        if plan.federation != self._me.federation or plan.run != name:
            raise VerificationError("plan is of another federation or run")
        if self._me.site not in plan.sites:
            raise PolicyRefused(f"site {self._me.site} is not in the plan's cohort")
        shelf = Shelf(self._store, name, self._max_bytes)
        self._gate.check(plan, shelf.layout())
        shelf.keep_plan(document)
        settings = dict(document["encryption"])  # type: ignore[call-overload]
        scheme: Scheme = registry.load("he", plan.scheme).create(settings)
        self._ledger.append(
            "run.joined", name, run=name, detail={"plan": plan.digest.hex()}
        )
        return _Joined(plan, shelf, scheme, self._cabinet.get(name))

    def _begin(self, run: _Joined, request: Verified, trainer: Trainer) -> bytes:
        """As the custodian: make the run key, wrap it to every site, once."""
        known = run.shelf.answer(0)
        if known is not None:
            return known
        boxes = {site: self._peers.box(site) for site in run.plan.sites}
        key, document = custody.make_run_key(
            run.scheme,
            scheme_name=run.plan.scheme,
            run=run.plan.run,
            federation=run.plan.federation,
            custodian=self._me.site,
            recipients=boxes,
            signing=self._me.signing,
        )
        pieces = [("statement", document.statement)]
        pieces += [(f"wrap:{site}", document.wraps[site]) for site in run.plan.sites]
        if request.header.get("initial") is True:
            layout, model = trainer.initial(run.plan.settings)
            pieces.append(("layout", _layout_bytes(layout)))
            pieces.append(("initial", model.astype("<f8").tobytes()))
        scope = Scope(
            request.scope.round, self._me.site, key.key_id, b"", run.plan.digest
        )
        header: dict[str, JSON] = {"parts": parts.listing(pieces)}
        data = self._sign(Kind.BEGIN, scope, header, parts.join(pieces)).to_bytes()
        run.shelf.keep_answer(0, data)
        return data

    def _start(
        self, run: _Joined, request: Verified, pieces: list[tuple[str, bytes]]
    ) -> None:
        """Take the run key and the first model from a request, if they are new."""
        statement, wrap = parts.one(pieces, "statement"), parts.one(pieces, "wrap")
        if run.key is None and statement is not None and wrap is not None:
            run.key = self._open_key(run, request, statement, wrap)
        if run.key is None:
            raise KeyMissing(f"run {run.plan.run}: this site has no run key yet")
        layout, first = parts.one(pieces, "layout"), parts.one(pieces, "initial")
        if run.shelf.layout() is None and layout is not None and first is not None:
            self._keep_first(run, layout, first)
        request.require(self._scope(run, request.scope.round))

    def _open_key(
        self, run: _Joined, request: Verified, statement: bytes, wrap: bytes
    ) -> SecretKey:
        custodian = parts.text(request.header, "custodian")
        if custodian not in run.plan.custodians:
            raise VerificationError(f"{custodian!r} may not make this run's key")
        key = custody.open_run_key(
            statement,
            wrap,
            run.scheme,
            scheme_name=run.plan.scheme,
            run=run.plan.run,
            federation=run.plan.federation,
            custodian=custodian,
            verify_key=self._peers.site(custodian),
            site=self._me.site,
            box=self._me.box,
        )
        self._cabinet.keep(run.plan.run, key)
        self._ledger.append(
            "key.opened",
            key.key_id.hex(),
            run=run.plan.run,
            term=self._term,
            detail={"custodian": custodian},
        )
        return key

    def _keep_first(self, run: _Joined, layout: bytes, first: bytes) -> None:
        shape = read_layout(layout)
        model = np.frombuffer(first, dtype="<f8")
        if model.shape != (shape.num_parameters,) or not np.isfinite(model).all():
            raise VerificationError("the first model does not fit its layout")
        self._gate.check(run.plan, shape)
        run.shelf.keep_first_model(shape, model)

    # --- small steps ----------------------------------------------------------------

    def _report(self, run: _Joined, request: Verified, trainer: Trainer) -> bytes:
        """Evaluate the last model without training; metrics leave under the plan."""
        layout, model = self._model_after(run, request.header)
        metrics: Mapping[str, JSON] = {}
        if run.plan.metrics == "plain":
            task = TrainingTask(
                request.scope.round, layout, model, run.plan.settings, train=False
            )
            metrics = dict(trainer.run(task).metrics)
        header: dict[str, JSON] = {"metrics": dict(metrics)}
        scope = self._scope(run, request.scope.round)
        return self._sign(Kind.REPORT, scope, header, b"").to_bytes()

    def _task(self, admitted: Admitted, *, train: bool) -> TrainingTask:
        return TrainingTask(
            admitted.round,
            admitted.layout,
            admitted.model,
            admitted.plan.settings,
            train=train,
        )

    def _key(self, run: _Joined) -> SecretKey:
        if run.key is None:
            raise KeyMissing(f"run {run.plan.run}: this site has no run key")
        return run.key

    def _scope(self, run: _Joined, round_id: RoundId, site: str = "") -> Scope:
        layout = run.shelf.layout()
        return Scope(
            round_id,
            site or self._me.site,
            self._key(run).key_id,
            b"" if layout is None else layout.digest(),
            run.plan.digest,
        )

    def _sign(
        self, kind: Kind, scope: Scope, header: Mapping[str, JSON], body: bytes
    ) -> Envelope:
        me = self._me
        return sign(kind, scope, header, body, signer=me.site, key=me.signing)

    def _own(self, data: bytes) -> Verified:
        kinds = (Kind.UPDATE, Kind.BEGIN)
        return verify(
            parse(data, self._max_bytes), self._me.signing.public, kinds=kinds
        )

    def _refusal(self, scope: Scope, reason: Exception) -> Envelope:
        """Say no with a code only: the reason stays here (PRIVACY section 10)."""
        code = str(getattr(reason, "code", "failed"))
        log.warning("site %s refuses: %s: %s", self._me.site, code, reason)
        return self._sign(Kind.REFUSAL, scope, {"code": code, "term": self._term}, b"")


def model_digest(model: Vector) -> bytes:
    """Return SHA-256 of a model's little-endian float64 bytes; 32 bytes."""
    return hashlib.sha256(model.astype("<f8").tobytes()).digest()


def _weigh(plan: RunPlan, delta: Vector, rows: int) -> Vector:
    """Return what is summed: the delta, or rows/max_rows of it and the weight."""
    if not plan.max_rows:
        return delta
    weight = min(rows, plan.max_rows) / plan.max_rows
    return np.concatenate([delta * weight, [weight * plan.fixed.clip]])


def _unweigh(plan: RunPlan, total: Vector, contributors: int) -> Vector:
    """Return the mean update that a sum stands for."""
    if not plan.max_rows:
        return total / contributors
    weight = total[-1] / plan.fixed.clip
    if weight <= 0:
        raise VerificationError(f"the sum of weights is {weight}, must be positive")
    return np.asarray(total[:-1] / weight)


def _layout_bytes(layout: Layout) -> bytes:
    return canonical(layout.document())


def _digest(header: Mapping[str, JSON], name: str) -> bytes:
    try:
        return bytes.fromhex(parts.text(header, name))
    except ValueError as bad:
        raise VerificationError(f"message field {name!r} is not hexadecimal") from bad
