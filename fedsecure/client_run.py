"""The runs a site has joined: plan, run key, first model; what a round builds on."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedsecure import custody, parts, registry
from fedsecure.envelope import (
    Envelope,
    Head,
    Kind,
    Scope,
    Verified,
    canonical,
    sign,
    sign_head,
)
from fedsecure.errors import KeyMissing, PolicyRefused, VerificationError
from fedsecure.he import Scheme
from fedsecure.keyring import KeyRing
from fedsecure.keys import BoxKey, BoxPublic, SigningKey, VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.outgoing import Bytes
from fedsecure.release import plan_digest
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.selection import encrypted_tensors
from fedsecure.shelf import Kept, Shelf, read_layout
from fedsecure.stores import Store
from fedsecure.trainer import JSON, Trainer
from fedsecure.update import Layout, RoundId, float_bytes
from fedsecure.updateform import update_form

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
        """Return a site's box key, revoked or not; VerificationError if none."""
        ...

    def takes_part(self, name: str) -> bool:
        """Return whether a member was not revoked."""
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

    def sign(
        self, kind: Kind, scope: Scope, header: Mapping[str, JSON], body: bytes
    ) -> Envelope:
        """Return an envelope signed by this site."""
        return sign(kind, scope, header, body, signer=self.site, key=self.signing)

    def sign_head(
        self,
        kind: Kind,
        scope: Scope,
        header: Mapping[str, JSON],
        body: tuple[int, str],
    ) -> Head:
        """Return the head of a message whose body lies elsewhere, signed by this site.

        `body` is its length and its SHA-256 as hexadecimal.
        """
        return sign_head(kind, scope, header, body, signer=self.site, key=self.signing)


@dataclass(slots=True)
class ClientRun:
    """One run this site takes part in."""

    site: str
    plan: RunPlan
    shelf: Shelf
    scheme: Scheme
    keys: KeyRing

    def scope(self, round_id: RoundId, site: str = "") -> Scope:
        """Return what a message of this run is signed for; by default this site's."""
        layout = self.shelf.layout()
        digest = b"" if layout is None else layout.digest()
        key_id = self.keys.id_of(round_id.number)
        return Scope(round_id, site or self.site, key_id, digest, self.plan.digest)


class ClientRuns:
    """All runs of a site, joined when they first ask and never under two plans."""

    def __init__(
        self,
        me: Identity,
        peers: Peers,
        gate: Gate,
        ledger: Ledger,
        store: Store,
        random: Callable[[int], bytes],
        *,
        max_bytes: int,
    ) -> None:
        self._me = me
        self._random = random
        self._peers = peers
        self._gate = gate
        self._ledger = ledger
        self._store = store
        self._max_bytes = max_bytes
        self._cabinet = custody.KeyCabinet(store, me.box)
        self._runs: dict[str, ClientRun] = {}

    def get(self, name: str) -> ClientRun:
        """Return a run joined before.

        Raises
        ------
        VerificationError
            This site never joined it.
        """
        run = self._runs.get(name)
        if run is None:
            raise VerificationError(f"run {name!r} was never joined here")
        return run

    def join(self, request: Verified) -> ClientRun:
        """Return the request's run, joining it under the plan it carries.

        Raises
        ------
        PolicyRefused
            Joined under another plan before, or the policy says no.
        VerificationError, ConfigurationError
            The plan is not the one signed for, of another federation, or not sound.
        """
        name = request.scope.round.run
        run = self._runs.get(name)
        if run is None:
            run = self._runs[name] = self._enter(name, _carried_plan(request))
        if request.scope.plan != run.plan.digest:
            raise PolicyRefused(f"run {name} was joined under another plan")
        self._gate.check(run.plan, run.shelf.layout())
        return run

    def rejoin(self, name: str) -> ClientRun:
        """Return a run that was joined before, if by a process that ended since.

        Under the plan on the shelf: a release is signed for a plan and brings none. Who
        takes the run must compare what that release is signed for with its `scope`.

        Raises
        ------
        VerificationError
            This site never joined it, or the plan on the shelf is not sound.
        PolicyRefused
            The policy says no by now.
        """
        run = self._runs.get(name)
        if run is None:
            document = Shelf(self._store, name, self._max_bytes).plan()
            if document is None:
                raise VerificationError(f"run {name!r} was never joined here")
            run = self._runs[name] = self._enter(name, document)
        self._gate.check(run.plan, run.shelf.layout())
        return run

    def begin(self, run: ClientRun, request: Verified, trainer: Trainer) -> Kept:
        """As the custodian: make a run key and wrap it to every site, once.

        Asked for round 0 at the beginning, and for a later round at a rotation: the key
        is for that round and on. Sites that were revoked get none.
        """
        first_round = request.scope.round.number
        slot = -first_round  # beside the rounds' own answers, which count from 1
        known = run.shelf.answer(slot)
        if known is not None:
            return known
        takers = [s for s in run.plan.sites if self._peers.takes_part(s)]
        key, document = custody.make_run_key(
            run.scheme,
            _facts(run.plan, self._me.site, first_round),
            {site: self._peers.box(site) for site in takers},
            self._me.signing,
            self._random(custody.NONCE_BYTES),
        )
        pieces: list[tuple[str, Bytes]] = [("statement", document.statement)]
        pieces += [(f"wrap:{site}", document.wraps[site]) for site in takers]
        layout: Layout | None
        if request.header.get("initial") is True:
            layout, model = trainer.initial(run.plan.settings)
            pieces.append(("layout", canonical(layout.document())))
            pieces.append(("initial", float_bytes(model)))
            parameters = model.size
        else:
            layout, parameters = _known_layout(run, request)
        form = update_form(run.plan, run.scheme, key, parameters, layout)
        pieces.append(("form", form.to_bytes()))
        me, plan = self._me.site, run.plan.digest
        scope = Scope(request.scope.round, me, key.key_id, b"", plan)
        header: dict[str, JSON] = {"parts": parts.listing(pieces)}

        def seal(size: int, sha256: str) -> Head:
            return self._me.sign_head(Kind.BEGIN, scope, header, (size, sha256))

        return run.shelf.keep_answer(slot, (data for _, data in pieces), seal)

    def take(
        self, run: ClientRun, request: Verified, pieces: list[tuple[str, memoryview]]
    ) -> None:
        """Take run keys and the first model from a request, if they are new.

        Raises
        ------
        VerificationError
            Not the custodian's, not for this site, or not what the plan describes.
        KeyMissing
            The site lacks the key of the request's round and was not given it.
        """
        for made, statement, wrap in _key_parts(request, pieces):
            if not run.keys.knows(made.first_round):
                self._open_key(run, made, bytes(statement), bytes(wrap))
        layout, first = parts.one(pieces, "layout"), parts.one(pieces, "initial")
        if run.shelf.layout() is None and layout is not None and first is not None:
            self._keep_first(run, layout, first)
        scope = run.scope(request.scope.round)
        if request.scope.key_id != scope.key_id:
            raise KeyMissing(
                f"run {run.plan.run}: round {scope.round.number} is under run key "
                f"{request.scope.key_id.hex()}, which did not come here"
            )
        request.require(scope)

    def _enter(self, name: str, document: Mapping[str, JSON]) -> ClientRun:
        plan = read_plan(document)
        if plan.federation != self._me.federation or plan.run != name:
            raise VerificationError("plan is of another federation or run")
        if self._me.site not in plan.sites:
            raise PolicyRefused(f"site {self._me.site} is not in the plan's cohort")
        shelf = Shelf(self._store, name, self._max_bytes)
        self._gate.check(plan, shelf.layout())
        self._same_as_before(shelf, document)
        _warn_of_open(plan)
        scheme: Scheme = registry.load("he", plan.scheme).create({})
        detail: dict[str, JSON] = {"plan": plan.digest.hex()}
        self._ledger.append("run.joined", name, run=name, detail=detail)
        keys = KeyRing(name, self._cabinet, self._ledger)
        return ClientRun(self._me.site, plan, shelf, scheme, keys)

    def _same_as_before(self, shelf: Shelf, document: Mapping[str, JSON]) -> None:
        before = shelf.plan()
        if before is not None and canonical(before) != canonical(document):
            raise PolicyRefused(f"run {shelf.run} was joined under another plan")
        shelf.keep_plan(document)

    def _open_key(
        self, run: ClientRun, made: "_Made", statement: bytes, wrap: bytes
    ) -> None:
        if made.custodian not in run.plan.custodians:
            raise VerificationError(f"{made.custodian!r} may not make this run's key")
        key = custody.open_run_key(
            (statement, wrap),
            run.scheme,
            _facts(run.plan, made.custodian, made.first_round),
            self._peers.site(made.custodian),
            self._me.site,
            self._me.box,
        )
        run.keys.take(made.first_round, key, made.custodian)

    def _keep_first(
        self, run: ClientRun, layout: memoryview, first: memoryview
    ) -> None:
        shape = read_layout(bytes(layout))
        if len(first) != 8 * shape.num_parameters:
            raise VerificationError("the first model does not fit its layout")
        model = np.frombuffer(first, dtype="<f8")
        if not np.isfinite(model).all():
            raise VerificationError("the first model holds NaN or Inf")
        self._gate.check(run.plan, shape)
        encrypted_tensors(shape, run.plan.encryption.encrypt_layers)
        run.shelf.keep_first_model(shape, model)


def _carried_plan(request: Verified) -> Mapping[str, JSON]:
    document = request.header.get("plan")
    if not isinstance(document, dict) or plan_digest(document) != request.scope.plan:
        raise VerificationError("request does not carry the plan it is signed for")
    return document


def _known_layout(run: ClientRun, request: Verified) -> tuple[Layout | None, int]:
    """Return the layout of a model the custodian does not make, and its size.

    From the shelf, or from the request of a run that begins with a model given. A false
    one makes a form that no site's update has: nothing leaves by it.
    """
    layout, count = run.shelf.layout(), parts.count(request.header, "parameters")
    if layout is None and request.body:
        layout = read_layout(bytes(request.body))
    return layout, count


def _warn_of_open(plan: RunPlan) -> None:
    """Say at each run join what an aggregator will read of this site's updates."""
    patterns = plan.encryption.encrypt_layers
    if not patterns:
        return
    shown = (
        "the masks still hide each single update, but their sum is open to it"
        if plan.encryption.masked
        else "it reads them in every single update of this site"
    )
    log.warning(
        "run %s encrypts the tensors %s only: all others travel open to the "
        "aggregator; %s. Open layers can be enough to rebuild training rows",
        plan.run,
        ", ".join(patterns),
        shown,
    )


def _facts(plan: RunPlan, custodian: str, first_round: int) -> custody.RunKeyFacts:
    names = (plan.federation, plan.run, plan.scheme, custodian)
    return custody.RunKeyFacts(*names, first_round)


@dataclass(frozen=True, slots=True)
class _Made:
    """Who made a key, and from which round on it is used."""

    first_round: int
    custodian: str


def _key_parts(
    request: Verified, pieces: list[tuple[str, memoryview]]
) -> list[tuple[_Made, memoryview, memoryview]]:
    """Return the keys that a request brings: what its header says, and their bytes."""
    rows = request.header.get("keys", [])
    statements = [data for name, data in pieces if name == "statement"]
    wraps = [data for name, data in pieces if name == "wrap"]
    if not isinstance(rows, list) or not len(rows) == len(statements) == len(wraps):
        raise VerificationError("request names other keys than it brings")
    made = []
    for row in rows:
        if not isinstance(row, dict):
            raise VerificationError("request: a key's row is not an object")
        first, custodian = parts.count(row, "first_round"), parts.text(row, "custodian")
        made.append(_Made(first, custodian))
    return list(zip(made, statements, wraps, strict=True))
