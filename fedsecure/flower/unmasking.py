"""After CLOSE: the sites' shares of what takes the masks off the sum.

Any t sites' shares will do, so a site that vanishes between its update and here stops
nothing. Sites promised each secret in their signed updates, so shares that are false
are found out and others are tried (Bonawitz et al., CCS 2017; docs/adr/0006).
"""

import itertools
import logging
from collections.abc import Mapping

from fedsecure import parts
from fedsecure.envelope import Kind
from fedsecure.errors import FedsecureError, StaleTerm, VerificationError
from fedsecure.flower.leader import Leader
from fedsecure.flower.letters import Letters
from fedsecure.flower.post import Answer, Round
from fedsecure.pledge import Pledge, cut, owed, promise
from fedsecure.receipts import HEADS, read_heads
from fedsecure.server_round import Closed
from fedsecure.shares import SHARE_BYTES, coefficients, combine
from fedsecure.trainer import JSON

log = logging.getLogger(__name__)

_ASKS_ALLOWED = 5
_PULSE = 0.25
_SETS_TRIED = 500
"""Choices of t answers that are tried at each answer before more are awaited."""


class Unmasking:
    """One round's search for the secrets that open its closed set.

    Parameters
    ----------
    leader : Leader
    letters : Letters
    closed : Closed
    pledges : mapping of str to Pledge
        Of every participant.
    """

    def __init__(
        self,
        leader: Leader,
        letters: Letters,
        closed: Closed,
        pledges: Mapping[str, Pledge],
    ) -> None:
        self._leader = leader
        self._letters = letters
        self._closed = closed
        self._pledges = pledges
        self._sites = leader.terms.sites
        self._owed = owed(self._sites, {site for site, _ in closed.participants})
        self._shares: dict[int, list[bytes]] = {}
        self._out: set[str] = set()

    def secrets(self) -> bytes | None:
        """Return the secrets in the order of `owed`; None if too few sites answer."""
        clock, number = self._leader.tools.clock, self._closed.round.number
        ends = clock.now() + self._leader.terms.deadline
        found: bytes | None = None
        group = f"{self._leader.terms.run}/{number}/unmask"
        with self._leader.tools.post(group) as exchange:
            for site in self._leader.terms.asked:
                self._ask(exchange, site)
            while found is None and clock.now() < ends and self._enough_left():
                self._leader.check()
                answer = exchange.next(min(_PULSE, max(ends - clock.now(), 0.0)))
                if answer is not None:
                    self._take(exchange, answer)
                    exchange.done()
                    found = self._open()
        return found

    def _enough_left(self) -> bool:
        terms = self._leader.terms
        return len(terms.asked) - len(self._out) >= terms.threshold

    def _ask(self, exchange: Round, site: str) -> None:
        exchange.ask(site, lambda: self._letter(site))

    def _letter(self, site: str) -> bytes:
        rows: list[JSON] = [[s, d.hex()] for s, d in self._closed.participants]
        header: dict[str, JSON] = {
            "term": self._leader.term,
            "plan": dict(self._leader.terms.plan),
            "participants": rows,
            HEADS: self._letters.heads.document(),
        }
        place = self._sites.index(site)
        names = {s for s, _ in self._closed.participants}
        body = b"".join(
            self._pledges[owner].bundles[place]
            for owner in self._sites
            if owner in names
        )
        scope = self._letters.scope(site, self._closed.round.number)
        return self._leader.sign(Kind.UNMASK_REQUEST, scope, header, body)

    def _take(self, exchange: Round, answer: Answer) -> None:
        try:
            self._judge(answer)
        except StaleTerm:
            raise
        except FedsecureError as bad:
            log.warning("unmask: %s: %s", answer.site, bad)
            self._again(exchange, answer.site)

    def _judge(self, answer: Answer) -> None:
        kinds = (Kind.SHARES, Kind.REFUSAL)
        message = self._leader.verified(answer.data, kinds)
        site, number = message.signer, self._closed.round.number
        if message.kind == Kind.REFUSAL:
            code = parts.text(message.header, "code")
            if code == StaleTerm.code:
                self._leader.heed(site, parts.count(message.header, "term"))
            self._leader.note("rejected", number, {"site": site, "code": code})
            self._out.add(site)
            return
        message.require(self._letters.scope(site, number))
        shares = cut(message.body, SHARE_BYTES)
        if len(shares) != len(self._owed):
            raise VerificationError(f"{len(shares)} shares, must be {len(self._owed)}")
        heads = read_heads(message.header.get(HEADS, {}))
        self._letters.heads.take(heads.values())
        self._shares[self._sites.index(site)] = shares

    def _again(self, exchange: Round, site: str) -> None:
        if exchange.asked.get(site, 0) < _ASKS_ALLOWED:
            self._ask(exchange, site)
        else:
            self._out.add(site)

    def _open(self) -> bytes | None:
        """Try sets of t answers until every secret is the one promised."""
        needed = self._leader.terms.threshold
        sets = itertools.combinations(sorted(self._shares), needed)
        for tried, places in enumerate(itertools.islice(sets, _SETS_TRIED)):
            found = self._open_with(places)
            if found is not None:
                if tried:
                    self._leader.note("false_shares", self._closed.round.number, {})
                return found
        return None

    def _open_with(self, places: tuple[int, ...]) -> bytes | None:
        weights, round_id = coefficients(places), self._closed.round
        secrets = []
        for row, (owner, place) in enumerate(self._owed):
            promised = self._pledges[self._sites[owner]].promises[place]
            try:
                chosen = {p: self._shares[p][row] for p in places}
                secret = combine(chosen, weights)
            except VerificationError:
                return None
            if promise(round_id, owner, place, secret) != promised:
                return None
            secrets.append(secret)
        return b"".join(secrets)
