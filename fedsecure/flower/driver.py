"""The effects of a run's rounds, in the order that survives a crash after any of them.

Read `run_round` first. Every method is idempotent: a successor calls the same ones under
its own term and goes on after the last durable step (RESILIENCE.md section 6).
"""

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedsecure import ciphertext, parts
from fedsecure.checkpoint.vault import Vault
from fedsecure.ciphertext import RunningSum
from fedsecure.clock import Clock
from fedsecure.envelope import Kind, Scope, Verified, parse, sign, verify
from fedsecure.errors import FedsecureError, QuorumNotMet, VerificationError
from fedsecure.flower.post import Answer, Round
from fedsecure.keys import SigningKey, VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.metadata import Head, Journal, JournalEntry, Step
from fedsecure.monitor.observer import Observer
from fedsecure.release import release_of
from fedsecure.server_round import (
    Accepted,
    Closed,
    Opening,
    Rejected,
    ServerRound,
    close_entry,
    open_entry,
    plain_entry,
    read_detail,
    resume,
    update_entry,
)
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

log = logging.getLogger(__name__)

CIPHERTEXT_MARGIN = 1 << 16


@dataclass(frozen=True, slots=True)
class Terms:
    """What the leader runs: public facts of the plan, none of its meaning.

    Attributes
    ----------
    run : str
    plan : Mapping
        The plan's document, passed on as it is.
    plan_digest : bytes
    rounds, min_contributors, max_contributors : int
    sites, custodians : tuple of str
    deadline : float
        Seconds a round stays open.
    max_bytes : int
        Largest message accepted.
    """

    run: str
    plan: Mapping[str, JSON]
    plan_digest: bytes
    rounds: int
    min_contributors: int
    max_contributors: int
    sites: tuple[str, ...]
    custodians: tuple[str, ...]
    deadline: float
    max_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Tools:
    """What the driver works with; every one of them is handed in."""

    name: str
    signing: SigningKey
    keys: Mapping[str, VerifyKey]
    journal: Journal
    vault: Vault
    ledger: Ledger
    observer: Observer
    clock: Clock
    post: Callable[[str], Round]
    """Opens an exchange for a group of letters."""


@dataclass(slots=True)
class _Beginning:
    """What BEGIN fixed: the run key's wraps and the first model."""

    custodian: str
    key_id: bytes
    layout: bytes
    first: bytes
    pieces: dict[str, bytes] = field(default_factory=dict)


class RoundDriver:
    """One leadership's work on one run.

    Parameters
    ----------
    terms : Terms
    tools : Tools
    term : int
        The fencing number everything is written under.
    check : callable
        Raises LeaseLost once this aggregator no longer leads.
    first : tuple of bytes, optional
        Layout (canonical JSON) and first model (float64); the custodian site makes
        them when they are not given.
    """

    def __init__(
        self,
        terms: Terms,
        tools: Tools,
        term: int,
        check: Callable[[], None],
        first: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._terms = terms
        self._tools = tools
        self._term = term
        self._check = check
        self._first = first
        self._began: _Beginning | None = None
        self._opened_by: dict[str, int] = {}
        self._keyed: set[str] = set()

    # --- a whole run, a whole round --------------------------------------------------

    def run(self) -> None:
        """Do every step of the run that is not durable yet.

        Raises
        ------
        LeaseLost, StaleTerm, Conflict
            Somebody else leads; nothing was done twice.
        QuorumNotMet
            Too many rounds in a row found too few sites.
        """
        self.begin()
        head, skipped = self._journal.head(self._terms.run), self._skipped()
        number = max(0 if head is None else head.round, *skipped, 0) + 1
        misses = 0
        while number <= self._terms.rounds:
            misses = 0 if self.run_round(number) else misses + 1
            if misses >= 3:
                raise QuorumNotMet(
                    f"rounds {number - 2} to {number}: fewer than "
                    f"{self._terms.min_contributors} contributors each time"
                )
            number += 1
        self.finish()

    def run_round(self, number: int) -> bool:
        """Open, collect, close and release one round; False if it was skipped."""
        started = self._tools.clock.now()
        round_id = RoundId(self._terms.run, number)
        current, fresh = self._open(round_id)
        total = RunningSum(
            self._beginning.key_id, max_summands=self._terms.max_contributors
        )
        self._refill(current, total)
        closed = current.close(self._tools.clock.now())
        sent = received = 0
        if closed is None:
            closed, sent, received = self._collect(current, total)
        if closed is None:
            self._skip(round_id)
            return False
        self._write(close_entry(closed, _operation()))
        self._note(
            "closed", number, {"participants": [s for s, _ in closed.participants]}
        )
        self._release(current, closed, total)
        self._note(
            "released",
            number,
            {
                "participants": [s for s, _ in closed.participants],
                "metrics": {a.site: dict(a.metrics) for a in current.taken},
                "seconds": self._tools.clock.now() - started,
                "sent_bytes": sent,
                "received_bytes": received,
                "opened_here": fresh,
            },
        )
        self._published(number - 1)
        return True

    # --- BEGIN ------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the custodian make the run key, once; keep its wraps for the sites."""
        entry = next(
            (
                e
                for e in self._journal.entries(self._terms.run, 0)
                if e.step == Step.BEGIN
            ),
            None,
        )
        if entry is None:
            entry = self._begin()
        detail = read_detail(entry)
        data = self._tools.vault.read(str(detail["object"]), self._terms.max_bytes)
        message = self._verified(data, (Kind.BEGIN,))
        pieces = dict(parts.split(message))
        if self._first is not None:
            pieces["layout"], pieces["initial"] = self._first
        self._began = _Beginning(
            message.signer,
            message.scope.key_id,
            bytes.fromhex(str(detail["layout"])),
            bytes.fromhex(str(detail["first"])),
            pieces,
        )

    def _begin(self) -> JournalEntry:
        data = self._ask_custodian()
        message = self._verified(data, (Kind.BEGIN,))
        pieces = dict(parts.split(message))
        layout, first = self._first or (pieces["layout"], pieces["initial"])
        name = f"begin/{message.digest.hex()}"
        self._tools.vault.keep(name, data)
        detail: dict[str, JSON] = {
            "object": name,
            "custodian": message.signer,
            "layout": _sha256(layout),
            "first": _sha256(first),
            "key_id": message.scope.key_id.hex(),
        }
        round_id = RoundId(self._terms.run, 0)
        entry = plain_entry(round_id, Step.BEGIN, _operation(), detail)
        self._write(entry)
        self._note("began", 0, {"custodian": message.signer})
        return entry

    def _ask_custodian(self) -> bytes:
        """Ask the custodians in order; the next one after a deadline."""
        round_id = RoundId(self._terms.run, 0)
        for site in self._terms.custodians:
            scope = Scope(round_id, site, b"", b"", self._terms.plan_digest)
            header = self._header({"initial": self._first is None})
            letter = self._sign(Kind.BEGIN_REQUEST, scope, header, b"")
            with self._tools.post(f"{self._terms.run}/begin") as exchange:
                exchange.ask(site, lambda letter=letter: letter)  # type: ignore[misc]
                data = self._first_good(exchange, site, Kind.BEGIN)
            if data is not None:
                return data
        raise QuorumNotMet("no custodian site made the run key in time")

    def _first_good(self, exchange: Round, site: str, kind: Kind) -> bytes | None:
        ends = self._tools.clock.now() + self._terms.deadline
        while (now := self._tools.clock.now()) < ends:
            self._check()
            answer = exchange.next(min(0.25, ends - now))
            if answer is None:
                continue
            exchange.done()
            try:
                self._verified(answer.data, (kind,))
            except FedsecureError as bad:
                log.warning("site %s: %s", site, bad)
                return None
            return answer.data
        return None

    # --- D1 OPEN ----------------------------------------------------------------------

    def _open(self, round_id: RoundId) -> tuple[ServerRound, bool]:
        now = self._tools.clock.now()
        entries = [
            e
            for e in self._journal.entries(self._terms.run, round_id.number)
            if e.round == round_id.number
        ]
        found = resume(entries, self._tools.keys, now)
        if found is not None:
            reused = [a.site for a in found.taken]
            self._note("resumed", round_id.number, {"reused": list(reused)})
            return found, False
        began = self._beginning
        opening = Opening(
            round_id,
            self._terms.sites,
            self._terms.min_contributors,
            self._terms.deadline,
            self._input(),
            began.key_id,
            began.layout,
            self._terms.plan_digest,
        )
        self._write(open_entry(opening, _operation()))
        self._tools.ledger.append(
            "round.open",
            round_id.run,
            run=round_id.run,
            round=round_id.number,
            term=self._term,
        )
        self._note("opened", round_id.number, {"cohort": list(opening.cohort)})
        return ServerRound(opening, self._tools.keys, now), True

    def _input(self) -> bytes:
        """Digest of what the next round starts from."""
        last = self._last_release()
        return self._beginning.first if last is None else last[1]

    # --- D2 UPDATE --------------------------------------------------------------------

    def _refill(self, current: ServerRound, total: RunningSum) -> None:
        """Add the journalled updates again: order does not matter modulo q."""
        for accepted in current.taken:
            data = self._tools.vault.read(accepted.object, self._terms.max_bytes)
            message = self._verified(data, (Kind.UPDATE,))
            message.require(current.opening.scope(accepted.site))
            if message.digest != accepted.digest:
                raise VerificationError(
                    f"stored update of {accepted.site} is not the journalled one"
                )
            total.add(self._read_sum(message.body, 1))

    def _collect(
        self, current: ServerRound, total: RunningSum
    ) -> tuple[Closed | None, int, int]:
        number, received = current.opening.round.number, 0
        with self._tools.post(f"{self._terms.run}/{number}") as exchange:
            for site in current.missing:
                exchange.ask(site, self._letter(site, number, train=True))
            while True:
                self._check()
                now = self._tools.clock.now()
                closed = current.close(now)
                if closed is not None or current.failed(now):
                    return closed, sum(exchange.sent_bytes.values()), received
                answer = exchange.next(min(0.25, max(current.ends - now, 0.0)))
                if answer is not None:
                    received += len(answer.data)
                    self._take(current, total, answer, exchange)
                    exchange.done()

    def _take(
        self, current: ServerRound, total: RunningSum, answer: Answer, exchange: Round
    ) -> None:
        number = current.opening.round.number
        try:
            envelope = parse(answer.data, self._terms.max_bytes)
            verdict = current.accept(envelope, self._tools.clock.now())
            if isinstance(verdict, Accepted):
                summand = self._read_sum(envelope.body, 1)
                total.check(summand)
        except FedsecureError as bad:
            code = str(getattr(bad, "code", "failed"))
            verdict = Rejected(answer.site, code, str(bad), ask_again=True)
        if isinstance(verdict, Rejected):
            self._reject(current, verdict, exchange)
            return
        self._tools.vault.keep(verdict.object, answer.data)
        self._write(update_entry(current.opening.round, verdict, _operation()))
        total.add(summand)
        current.take(verdict)
        self._keyed.add(verdict.site)
        self._opened_by[verdict.site] = number - 1
        self._note("update", number, {"site": verdict.site, "bytes": len(answer.data)})

    def _reject(self, current: ServerRound, verdict: Rejected, exchange: Round) -> None:
        number = current.opening.round.number
        log.warning("round %d: %s: %s", number, verdict.site, verdict.reason)
        self._note("rejected", number, {"site": verdict.site, "code": verdict.code})
        self._keyed.discard(verdict.site)
        self._opened_by.pop(verdict.site, None)
        if not verdict.ask_again:
            current.leave_out(verdict.site)
        elif verdict.site in current.missing:
            exchange.ask(verdict.site, self._letter(verdict.site, number, train=True))

    # --- D3 CLOSE, D4 RELEASE, D5 PUBLISH ---------------------------------------------

    def _release(self, current: ServerRound, closed: Closed, total: RunningSum) -> Head:
        round_id = closed.round
        body = ciphertext.to_bytes(total.total())
        after = self._last_release()
        base = 0 if after is None else after[0]
        release = release_of(round_id, base, dict(closed.participants), body)
        opening = current.opening
        scope = Scope(round_id, "*", opening.key_id, opening.layout, opening.plan)
        header: dict[str, JSON] = {**release.header(), "term": self._term}
        data = self._sign(Kind.RELEASE, scope, header, body)
        self._check()
        head = self._tools.vault.release(
            data, release, closed.root, self._term, self._journal.head(round_id.run)
        )
        self._journal.advance(self._term, self._journal.head(round_id.run), head)
        self._tools.ledger.append(
            "round.release",
            release.digest().hex(),
            run=round_id.run,
            round=round_id.number,
            term=self._term,
            detail={"sites": list(release.sites)},
        )
        return head

    def _published(self, number: int) -> None:
        """Every site that answered has opened round `number`: its updates go."""
        if number < 1:
            return
        round_id = RoundId(self._terms.run, number)
        entries = list(self._journal.entries(self._terms.run, number))
        mine = [e for e in entries if e.round == number]
        if any(e.step in {Step.PUBLISH, Step.SKIP} for e in mine):
            return
        self._write(plain_entry(round_id, Step.PUBLISH, _operation(), {}))
        for entry in mine:
            if entry.step == Step.UPDATE:
                self._tools.vault.drop(str(read_detail(entry)["object"]))
        self._note("published", number, {})

    def finish(self) -> None:
        """Give the last release to every site and take their last metrics."""
        last = self._last_release()
        if last is None or self._finished(last[0]):
            return
        number = self._terms.rounds + 1
        reports: dict[str, JSON] = {}
        with self._tools.post(f"{self._terms.run}/finish") as exchange:
            for site in self._terms.sites:
                exchange.ask(site, self._letter(site, number, train=False))
            self._await_reports(exchange, number, reports)
        self._published(last[0])
        self._note("finished", last[0], {"metrics": reports})

    def _await_reports(
        self, exchange: Round, number: int, reports: dict[str, JSON]
    ) -> None:
        ends = self._tools.clock.now() + self._terms.deadline
        while len(reports) < len(self._terms.sites):
            self._check()
            now = self._tools.clock.now()
            if now >= ends:
                log.warning("finish: %d sites did not report", len(self._terms.sites))
                return
            answer = exchange.next(min(0.25, ends - now))
            if answer is None:
                continue
            exchange.done()
            self._take_report(exchange, number, answer, reports)

    def _take_report(
        self, exchange: Round, number: int, answer: Answer, reports: dict[str, JSON]
    ) -> None:
        try:
            message = self._verified(answer.data, (Kind.REPORT, Kind.REFUSAL))
        except FedsecureError as bad:
            log.warning("finish: %s: %s", answer.site, bad)
            return
        if message.kind == Kind.REPORT:
            reports[message.signer] = message.header.get("metrics")
            return
        code = str(message.header.get("code"))
        self._note("rejected", number, {"site": message.signer, "code": code})
        self._keyed.discard(message.signer)
        self._opened_by.pop(message.signer, None)
        if code in {"key_missing", "release_missing", "verification"}:
            exchange.ask(answer.site, self._letter(answer.site, number, train=False))
        else:
            reports[message.signer] = None

    # --- letters ----------------------------------------------------------------------

    def _letter(self, site: str, number: int, *, train: bool) -> Callable[[], bytes]:
        """Return a letter's maker: it is made when it is sent, not before."""
        return lambda: self._request(site, number, train=train)

    def _request(self, site: str, number: int, *, train: bool) -> bytes:
        began = self._beginning
        pieces: list[tuple[str, bytes]] = []
        if site not in self._keyed:
            pieces += [("statement", began.pieces["statement"])]
            pieces += [("wrap", began.pieces[f"wrap:{site}"])]
            pieces += [(k, began.pieces[k]) for k in ("layout", "initial")]
        for head in self._heads(self._opened_by.get(site, 0) + 1):
            pieces.append(("release", self._tools.vault.read_release(head)))
        last = self._last_release()
        extra: dict[str, JSON] = {
            "train": train,
            "after": 0 if last is None else last[0],
            "input": self._input().hex(),
            "custodian": began.custodian,
            "parts": parts.listing(pieces),
        }
        round_id = RoundId(self._terms.run, number)
        scope = Scope(
            round_id, site, began.key_id, began.layout, self._terms.plan_digest
        )
        body = parts.join(pieces)
        return self._sign(Kind.REQUEST, scope, self._header(extra), body)

    def _header(self, extra: Mapping[str, JSON]) -> dict[str, JSON]:
        return {"term": self._term, "plan": dict(self._terms.plan), **extra}

    def _sign(
        self, kind: Kind, scope: Scope, header: Mapping[str, JSON], body: bytes
    ) -> bytes:
        tools = self._tools
        envelope = sign(kind, scope, header, body, signer=tools.name, key=tools.signing)
        return envelope.to_bytes()

    # --- small steps ------------------------------------------------------------------

    @property
    def _journal(self) -> Journal:
        return self._tools.journal

    @property
    def _beginning(self) -> _Beginning:
        if self._began is None:
            raise VerificationError("begin() comes first")
        return self._began

    def _write(self, entry: JournalEntry) -> None:
        self._check()
        self._journal.append(self._term, [entry])

    def _skip(self, round_id: RoundId) -> None:
        self._write(plain_entry(round_id, Step.SKIP, _operation(), {}))
        self._note("skipped", round_id.number, {})

    def _skipped(self) -> list[int]:
        entries = self._journal.entries(self._terms.run, 1)
        return [e.round for e in entries if e.step == Step.SKIP]

    def _finished(self, last: int) -> bool:
        entries = self._journal.entries(self._terms.run, last)
        return any(e.step == Step.PUBLISH and e.round == last for e in entries)

    def _heads(self, first_round: int) -> list[Head]:
        """Return the heads of the rounds from `first_round` on, in order."""
        run, heads = self._terms.run, []
        for entry in self._journal.entries(run, first_round):
            if entry.step == Step.RELEASE:
                detail = read_detail(entry)
                manifest = bytes.fromhex(str(detail["manifest"]))
                sequence = int(str(detail["sequence"]))
                heads.append(Head(run, entry.round, sequence, manifest, self._term))
        return heads

    def _last_release(self) -> tuple[int, bytes] | None:
        """Return round and release digest of the head."""
        head = self._journal.head(self._terms.run)
        return None if head is None else (head.round, self._tools.vault.digest(head))

    def _read_sum(self, body: bytes, summands: int) -> ciphertext.Ciphertext:
        return ciphertext.from_bytes(
            body, key_id=self._beginning.key_id, max_summands=summands
        )

    def _verified(self, data: bytes, kinds: tuple[Kind, ...]) -> Verified:
        envelope = parse(data, self._terms.max_bytes)
        key = self._tools.keys.get(envelope.signer)
        if key is None:
            raise VerificationError(f"{envelope.signer!r} is not a site of this run")
        return verify(envelope, key, kinds=kinds)

    def _note(self, event: str, number: int, fields: Mapping[str, JSON]) -> None:
        facts: dict[str, JSON] = {"round": number, "term": self._term, **fields}
        self._tools.observer.note(event, facts)


def _operation() -> str:
    return uuid.uuid4().hex


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
