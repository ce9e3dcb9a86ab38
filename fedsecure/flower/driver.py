"""The effects of a run's rounds, in the order that survives a crash after any of them.

Read `run_round` first. Every method is idempotent: a successor calls the same ones
under its own term and goes on after the last durable step (RESILIENCE.md section 6).
"""

import logging
import uuid
from dataclasses import dataclass

from fedsecure.body import BodySum
from fedsecure.ciphertext import Wire
from fedsecure.envelope import Kind, parse
from fedsecure.errors import (
    FedsecureError,
    QuorumNotMet,
    VerificationError,
)
from fedsecure.flower.beginning import begin, rotate
from fedsecure.flower.ending import Ending
from fedsecure.flower.leader import Leader
from fedsecure.flower.letters import Letters
from fedsecure.flower.post import Answer, Round
from fedsecure.flower.releasing import release_round, require_same
from fedsecure.flower.unmasking import Unmasking
from fedsecure.flower.updates import Updates
from fedsecure.metadata import Step
from fedsecure.outgoing import Bytes
from fedsecure.pledge import Pledge, read_pledge
from fedsecure.server_round import (
    Accepted,
    Closed,
    Opening,
    Rejected,
    ServerRound,
    close_entry,
    open_entry,
    plain_entry,
    resume,
    update_entry,
)
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

log = logging.getLogger(__name__)

MISSES_ALLOWED = 3
"""Rounds in a row without a quorum after which the run ends."""
ASKS_ALLOWED = 5
"""Times a site that answers badly is asked in one exchange before it is left out."""
_PULSE = 0.25
"""Seconds between two looks at lease and deadline."""


@dataclass(slots=True)
class _Traffic:
    """Bytes of one round, both ways, all sites together."""

    sent: int = 0
    received: int = 0


class RoundDriver:
    """One leadership's work on one run.

    Parameters
    ----------
    leader : Leader
    first : tuple of bytes, optional
        Layout and first model; see `beginning.begin`.
    """

    def __init__(
        self, leader: Leader, first: tuple[bytes, bytes] | None = None
    ) -> None:
        self._leader = leader
        self._began = begin(leader, first)
        self._letters = Letters(leader, self._began)
        self._updates = Updates(leader)
        self._pledges: dict[str, Pledge] = {}

    def run(self) -> None:
        """Do every step of the run that is not durable yet.

        Raises
        ------
        LeaseLost, StaleTerm, Conflict
            Somebody else leads; nothing was done twice.
        ConfigurationError
            What was released was made under another configuration or by other code.
        QuorumNotMet
            Too many rounds in a row found too few sites.
        """
        require_same(self._leader)
        self._sweep()
        misses = 0
        for number in range(self._next_round(), self._leader.terms.rounds + 1):
            self._rotate(number)
            misses = 0 if self.run_round(number) else misses + 1
            if misses >= MISSES_ALLOWED:
                raise QuorumNotMet(
                    f"{misses} rounds up to {number} had fewer than "
                    f"{self._leader.terms.min_contributors} contributors"
                )
        self._finish()

    def _rotate(self, number: int) -> None:
        """Have a new run key made before round `number`, if one is due.

        Due by an operator's wish, or because a site was revoked that holds the last. A
        round that is open closes under its own key.
        """
        leader = self._leader
        known = {e.step for e in leader.entries(number) if e.round == number}
        last = self._began.keys[-1]
        wanted = leader.tools.rotation.wanted()
        due = wanted or not last.reaches_no_other_than(leader.terms.asked)
        if due and Step.OPEN not in known and last.first_round < number:
            self._began = rotate(leader, self._began, number)
            self._letters.begin_anew(self._began)
            self._record("key.rotated", RoundId(leader.terms.run, number), "")
            leader.tools.rotation.granted()

    def run_round(self, number: int) -> bool:
        """Open, collect, close and release one round; False if it was skipped."""
        started, traffic = self._leader.tools.clock.now(), _Traffic()
        current = self._open(RoundId(self._leader.terms.run, number))
        key, most = self._began.at(number), self._leader.terms.max_contributors
        total = BodySum(key.key_id, len(key.form.headers), max_summands=most)
        self._refill(current, total)
        closed = self._collect(current, total, traffic)
        if closed is None:
            self._skip(number)
            return False
        self._close(closed)
        secrets = self._unmask(closed)
        if secrets is None:
            self._skip(number)
            return False
        self._release(current, closed, total, secrets)
        self._note_release(current, closed, traffic, started)
        self._publish_before(number)
        return True

    # --- D1 OPEN ----------------------------------------------------------------------

    def _open(self, round_id: RoundId) -> ServerRound:
        leader, now = self._leader, self._leader.tools.clock.now()
        mine = [
            e for e in leader.entries(round_id.number) if e.round == round_id.number
        ]
        found = resume(mine, leader.tools.keys, now)
        if found is not None:
            reused: list[JSON] = [accepted.site for accepted in found.taken]
            leader.note("resumed", round_id.number, {"reused": reused})
            return found
        terms, began = leader.terms, self._began
        opening = Opening(
            round_id,
            terms.asked,
            terms.min_contributors,
            terms.deadline,
            self._letters.last_release()[1],
            began.at(round_id.number).key_id,
            began.layout,
            terms.plan_digest,
        )
        key = self._updates.new_key(round_id, _operation())
        leader.write(open_entry(opening, _operation()), key)
        self._record("round.open", round_id, round_id.run)
        leader.note("opened", round_id.number, {"cohort": list(opening.cohort)})
        return ServerRound(opening, leader.tools.keys, now)

    # --- D2 UPDATE --------------------------------------------------------------------

    def _refill(self, current: ServerRound, total: BodySum) -> None:
        """Add the journalled updates again: order does not matter modulo q."""
        leader = self._leader
        for accepted in current.taken:
            data = self._updates.read(current.opening.round, accepted.object)
            message = leader.verified(data, (Kind.UPDATE,))
            message.require(current.opening.scope(accepted.site))
            if message.digest != accepted.digest:
                raise VerificationError(
                    f"stored update of {accepted.site} is not the journalled one"
                )
            total.add(self._summand(current, accepted.site, message.body))

    def _collect(
        self, current: ServerRound, total: BodySum, traffic: _Traffic
    ) -> Closed | None:
        leader, clock = self._leader, self._leader.tools.clock
        closed = current.close(clock.now())
        if closed is not None:
            return closed
        number = current.opening.round.number
        with leader.tools.post(f"{leader.terms.run}/{number}") as exchange:
            for site in current.missing:
                exchange.ask(site, self._letters.request(site, number, train=True))
            while closed is None and not current.failed(clock.now()):
                leader.check()
                wait = min(_PULSE, max(current.ends - clock.now(), 0.0))
                answer = exchange.next(wait)
                if answer is not None:
                    traffic.received += len(answer.data)
                    self._take(current, total, answer, exchange)
                    exchange.done()
                closed = current.close(clock.now())
            traffic.sent = sum(exchange.sent_bytes.values())
        for site in current.missing:  # it may wait for what nobody brings
            self._letters.holdings.brought.missed(site)
        return closed

    def _take(
        self, current: ServerRound, total: BodySum, answer: Answer, exchange: Round
    ) -> None:
        """Store, journal, add: an update counts from its row on, not before."""
        verdict, summand = self._judge(current, total, answer)
        if isinstance(verdict, Rejected) or summand is None:
            if isinstance(verdict, Rejected):
                self._reject(current, verdict, exchange)
            return
        round_id = current.opening.round
        verdict = self._updates.keep(round_id, verdict, answer.data)
        self._leader.write(update_entry(round_id, verdict, _operation()))
        total.add(summand)
        current.take(verdict)
        opened, number = self._letters.last_release()[0], round_id.number
        self._letters.holdings.has(verdict.site, opened, number)
        self._letters.holdings.brought.told(verdict.site, verdict.brought, opened)
        self._letters.heads.take(verdict.heads)
        facts: dict[str, JSON] = {"site": verdict.site, "bytes": len(answer.data)}
        self._leader.note("update", round_id.number, facts)

    def _judge(
        self, current: ServerRound, total: BodySum, answer: Answer
    ) -> tuple[Accepted | Rejected, tuple[Wire, ...] | None]:
        try:
            envelope = parse(answer.data, self._leader.terms.max_bytes)
            verdict = current.accept(envelope, self._leader.tools.clock.now())
            if isinstance(verdict, Rejected):
                return verdict, None
            summand = self._summand(current, envelope.signer, envelope.body)
            total.check(summand)
        except FedsecureError as bad:
            code = str(getattr(bad, "code", "failed"))
            return Rejected(answer.site, code, str(bad), ask_again=True), None
        return verdict, summand

    def _reject(self, current: ServerRound, verdict: Rejected, exchange: Round) -> None:
        number, site = current.opening.round.number, verdict.site
        log.warning("round %d: %s: %s", number, site, verdict.reason)
        self._leader.note("rejected", number, {"site": site, "code": verdict.code})
        self._leader.heed(site, verdict.seen)
        further = self._letters.holdings.refused(site, verdict.code)
        tried = 0 if further else exchange.asked.get(site, 0)
        if not verdict.ask_again or tried >= ASKS_ALLOWED:
            current.leave_out(site)
        elif site in current.missing:
            exchange.ask(site, self._letters.request(site, number, train=True))

    # --- D3 CLOSE, D4 RELEASE, D5 PUBLISH ---------------------------------------------

    def _close(self, closed: Closed) -> None:
        number = closed.round.number
        steps = {e.step for e in self._leader.entries(number) if e.round == number}
        if Step.CLOSE not in steps:
            self._leader.write(close_entry(closed, _operation()))

    def _unmask(self, closed: Closed) -> bytes | None:
        """Return what takes the masks off the sum; None if too few sites answer."""
        if not self._leader.terms.threshold:
            return b""
        names = {site for site, _ in closed.participants}
        pledges = {s: p for s, p in self._pledges.items() if s in names}
        found = Unmasking(self._leader, self._letters, closed, pledges).secrets()
        self._leader.note(
            "unmasked", closed.round.number, {"opened": found is not None}
        )
        return found

    def _release(
        self, current: ServerRound, closed: Closed, total: BodySum, secrets: bytes
    ) -> None:
        release = release_round(
            self._leader, self._letters, current.opening, closed, total, secrets
        )
        self._record("round.release", closed.round, release.digest().hex())
        self._letters.heads.keep()

    def _publish_before(self, number: int) -> None:
        """Publish every release below round `number` that is not published yet.

        Not only the last one: a leader may have died between a release and the
        publication before it.
        """
        entries = self._leader.entries(1)
        done = {e.round for e in entries if e.step == Step.PUBLISH}
        released = {e.round for e in entries if e.step == Step.RELEASE}
        for earlier in sorted(released - done):
            if earlier < number:
                self._publish(earlier)

    def _publish(self, number: int) -> None:
        """Sites have opened round `number`: its updates go, then the journal says so.

        In this order: who finds the entry looks for updates no more. The entry takes
        the round's key with it, so that a copy nobody could delete is nobody's.
        """
        self._leader.check()
        self._updates.drop(number)
        round_id = RoundId(self._leader.terms.run, number)
        self._leader.write(plain_entry(round_id, Step.PUBLISH, _operation(), {}))
        self._leader.note("published", number, {})

    def _sweep(self) -> None:
        """Finish what a leader left: updates of skipped rounds, releases untold."""
        released: list[JSON] = []
        for entry in self._leader.entries(1):
            if entry.step == Step.SKIP:
                self._updates.drop(entry.round)
            elif entry.step == Step.RELEASE:
                released.append(entry.round)
        if released:
            self._leader.note("standing", 0, {"released": released})

    def _skip(self, number: int) -> None:
        round_id = RoundId(self._leader.terms.run, number)
        self._leader.write(plain_entry(round_id, Step.SKIP, _operation(), {}))
        self._updates.drop(number)
        self._record("round.skip", round_id, round_id.run)
        self._leader.note("skipped", number, {})

    def _finish(self) -> None:
        last = self._letters.last_release()[0]
        if not last:
            raise QuorumNotMet("the run ended without a single completed round")
        reports = Ending(self._leader, self._letters).reports()
        self._publish_before(self._leader.terms.rounds + 1)
        self._leader.note("finished", last, {"metrics": reports})

    # --- small steps ------------------------------------------------------------------

    def _next_round(self) -> int:
        head = self._leader.tools.journal.head(self._leader.terms.run)
        done = [0 if head is None else head.round]
        done += [e.round for e in self._leader.entries(1) if e.step == Step.SKIP]
        return max(done) + 1

    def _summand(
        self, current: ServerRound, site: str, body: Bytes
    ) -> tuple[Wire, ...]:
        """Return an update's ciphertexts, and keep the pledge behind them."""
        key = self._began.at(current.opening.round.number)
        summand, behind = key.form.wires(body, key.key_id)
        if self._leader.terms.threshold:
            sites = len(self._leader.terms.sites)
            self._pledges[site] = read_pledge(behind, sites)
        elif len(behind):
            size = len(body) - len(behind)
            raise VerificationError(f"update of {len(body)} bytes, must be {size}")
        return summand

    def _record(self, action: str, round_id: RoundId, what: str) -> None:
        self._leader.tools.ledger.append(
            action,
            what,
            run=round_id.run,
            round=round_id.number,
            term=self._leader.term,
        )

    def _note_release(
        self, current: ServerRound, closed: Closed, traffic: _Traffic, started: float
    ) -> None:
        participants: list[JSON] = [site for site, _ in closed.participants]
        metrics: dict[str, JSON] = {a.site: dict(a.metrics) for a in current.taken}
        facts: dict[str, JSON] = {
            "participants": participants,
            "metrics": metrics,
            "seconds": self._leader.tools.clock.now() - started,
            "sent_bytes": traffic.sent,
            "received_bytes": traffic.received,
        }
        self._leader.note("released", closed.round.number, facts)


def _operation() -> str:
    return uuid.uuid4().hex
