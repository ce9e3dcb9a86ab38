"""The runs a site has joined: plan, run key, first model; what a round builds on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedsecure import ciphertext, custody, parts, registry
from fedsecure.downlink import SEEDS, downlink_form
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
from fedsecure.he import Scheme, SecretKey
from fedsecure.keys import BoxKey, BoxPublic, SigningKey, VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.outgoing import Bytes
from fedsecure.release import plan_digest
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.shelf import Kept, Shelf, read_layout
from fedsecure.stores import Store
from fedsecure.trainer import JSON, Trainer
from fedsecure.update import Layout, RoundId


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
    opened_key: SecretKey | None = None

    @property
    def key(self) -> SecretKey:
        """The run key.

        Raises
        ------
        KeyMissing
            The site was not given one yet.
        """
        if self.opened_key is None:
            raise KeyMissing(f"run {self.plan.run}: this site has no run key yet")
        return self.opened_key

    def scope(self, round_id: RoundId, site: str = "") -> Scope:
        """Return what a message of this run is signed for; by default this site's."""
        layout = self.shelf.layout()
        digest = b"" if layout is None else layout.digest()
        return Scope(
            round_id, site or self.site, self.key.key_id, digest, self.plan.digest
        )


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
            run = self._runs[name] = self._enter(name, request)
        if request.scope.plan != run.plan.digest:
            raise PolicyRefused(f"run {name} was joined under another plan")
        self._gate.check(run.plan, run.shelf.layout())
        return run

    def begin(self, run: ClientRun, request: Verified, trainer: Trainer) -> Kept:
        """As the custodian: make the run key and wrap it to every site, once."""
        known = run.shelf.answer(0)
        if known is not None:
            return known
        key, document = custody.make_run_key(
            run.scheme,
            _facts(run.plan, self._me.site),
            {site: self._peers.box(site) for site in run.plan.sites},
            self._me.signing,
            self._random(custody.NONCE_BYTES),
        )
        pieces: list[tuple[str, Bytes]] = [("statement", document.statement)]
        pieces += [(f"wrap:{site}", document.wraps[site]) for site in run.plan.sites]
        if request.header.get("initial") is True:
            layout, model = trainer.initial(run.plan.settings)
            pieces.append(("layout", canonical(layout.document())))
            whole = np.ascontiguousarray(model, dtype="<f8")
            pieces.append(("initial", whole.data.cast("B")))
            parameters = model.size
        else:
            parameters = parts.count(request.header, "parameters")
        pieces.append(("form", update_form(run, key, parameters)))
        me, plan = self._me.site, run.plan.digest
        scope = Scope(request.scope.round, me, key.key_id, b"", plan)
        header: dict[str, JSON] = {"parts": parts.listing(pieces)}

        def seal(size: int, sha256: str) -> Head:
            return self._me.sign_head(Kind.BEGIN, scope, header, (size, sha256))

        return run.shelf.keep_answer(0, (data for _, data in pieces), seal)

    def take(
        self, run: ClientRun, request: Verified, pieces: list[tuple[str, memoryview]]
    ) -> None:
        """Take the run key and the first model from a request, if they are new.

        Raises
        ------
        VerificationError
            Not the custodian's, not for this site, or not what the plan describes.
        KeyMissing
            The site has no run key and was given none.
        """
        statement, wrap = parts.one(pieces, "statement"), parts.one(pieces, "wrap")
        if run.opened_key is None and statement is not None and wrap is not None:
            run.opened_key = self._open_key(run, request, bytes(statement), bytes(wrap))
        layout, first = parts.one(pieces, "layout"), parts.one(pieces, "initial")
        if run.shelf.layout() is None and layout is not None and first is not None:
            self._keep_first(run, layout, first)
        request.require(run.scope(request.scope.round))

    def _enter(self, name: str, request: Verified) -> ClientRun:
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
        self._same_as_before(shelf, document)
        scheme: Scheme = registry.load("he", plan.scheme).create({})
        detail: dict[str, JSON] = {"plan": plan.digest.hex()}
        self._ledger.append("run.joined", name, run=name, detail=detail)
        return ClientRun(self._me.site, plan, shelf, scheme, self._cabinet.get(name))

    def _same_as_before(self, shelf: Shelf, document: Mapping[str, JSON]) -> None:
        before = shelf.plan()
        if before is not None and canonical(before) != canonical(document):
            raise PolicyRefused(f"run {shelf.run} was joined under another plan")
        shelf.keep_plan(document)

    def _open_key(
        self, run: ClientRun, request: Verified, statement: bytes, wrap: bytes
    ) -> SecretKey:
        custodian = parts.text(request.header, "custodian")
        if custodian not in run.plan.custodians:
            raise VerificationError(f"{custodian!r} may not make this run's key")
        key = custody.open_run_key(
            (statement, wrap),
            run.scheme,
            _facts(run.plan, custodian),
            self._peers.site(custodian),
            self._me.site,
            self._me.box,
        )
        self._cabinet.keep(run.plan.run, key)
        detail: dict[str, JSON] = {"custodian": custodian}
        self._ledger.append(
            "key.opened", key.key_id.hex(), run=run.plan.run, detail=detail
        )
        return key

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
        run.shelf.keep_first_model(shape, model)


def update_seeded(plan: RunPlan, parameters: int) -> bool:
    """Return whether updates carry seeds; custodian and sites find the same."""
    encryption = plan.encryption
    chosen = downlink_form(
        encryption.downlink, len(plan.sites), parameters, encryption.link_mbps
    )
    return chosen == SEEDS


def update_form(run: ClientRun, key: SecretKey, parameters: int) -> bytes:
    """Return what every update of the run begins with, from a ciphertext of zeros."""
    seeded = update_seeded(run.plan, parameters)
    encryptor = run.scheme.encryptor(key, seeded=seeded)
    sample = encryptor.encrypt(np.zeros((1, encryptor.slots), dtype=np.int64))
    count = parameters + (1 if run.plan.max_rows else 0)
    return ciphertext.form(sample, run.plan.profile.blocks(count, encryptor.slots))


def _facts(plan: RunPlan, custodian: str) -> custody.RunKeyFacts:
    return custody.RunKeyFacts(plan.federation, plan.run, plan.scheme, custodian)
