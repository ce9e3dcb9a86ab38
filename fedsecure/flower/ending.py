"""After the last round: every site gets the last release and gives its last metrics."""

import logging

from fedsecure.envelope import Kind
from fedsecure.errors import (
    AttemptsSpent,
    BudgetExhausted,
    FedsecureError,
    NoRoom,
    QuorumNotMet,
    StaleTerm,
    TrainingFailed,
)
from fedsecure.flower.leader import Leader
from fedsecure.flower.letters import Letters
from fedsecure.flower.post import Answer, Round
from fedsecure.parts import count
from fedsecure.receipts import HEADS, read_heads
from fedsecure.trainer import JSON

log = logging.getLogger(__name__)

_ASKS_ALLOWED = 5
_PULSE = 0.25
_OPENED = frozenset(
    no.code for no in (AttemptsSpent, BudgetExhausted, NoRoom, TrainingFailed)
)
"""What only a site answers that has opened the last release: its model is there, its
metrics are not. Any other refusal may have come before."""


class Ending:
    """The exchange after the last round.

    Parameters
    ----------
    leader : Leader
    letters : Letters
    """

    def __init__(self, leader: Leader, letters: Letters) -> None:
        self._leader = leader
        self._letters = letters
        self._number = leader.terms.rounds + 1
        self._refused: dict[str, str] = {}

    def reports(self) -> dict[str, JSON]:
        """Return the metrics of each site that reports before the deadline.

        Raises
        ------
        QuorumNotMet
            Every site refused: no one opened the last release.
        """
        reports: dict[str, JSON] = {}
        leader = self._leader
        with leader.tools.post(f"{leader.terms.run}/finish") as exchange:
            for site in leader.terms.asked:
                self._ask(exchange, site)
            self._await_reports(exchange, reports)
        self._letters.heads.keep()
        codes = {self._refused.get(site, "") for site in leader.terms.asked}
        if codes.isdisjoint(_OPENED | {""}):
            raise QuorumNotMet(
                f"the last release of run {leader.terms.run} was refused by all "
                f"{len(reports)} sites ({', '.join(sorted(codes))}): no site has its "
                "model. Their logs say why; start a new run"
            )
        return reports

    def _ask(self, exchange: Round, site: str) -> None:
        letter = self._letters.request(site, self._number, train=False)
        exchange.ask(site, letter)

    def _await_reports(self, exchange: Round, reports: dict[str, JSON]) -> None:
        terms, clock = self._leader.terms, self._leader.tools.clock
        ends = clock.now() + terms.deadline
        while len(reports) < len(terms.asked) and clock.now() < ends:
            self._leader.check()
            answer = exchange.next(min(_PULSE, max(ends - clock.now(), 0.0)))
            if answer is None:
                continue
            exchange.done()
            try:
                self._take_report(exchange, answer, reports)
            except StaleTerm:
                raise
            except FedsecureError as bad:
                log.warning("finish: %s: %s", answer.site, bad)
        silent = sorted(set(terms.asked) - reports.keys())
        if silent:
            log.warning("finish: no report from %s", ", ".join(silent))

    def _take_report(
        self, exchange: Round, answer: Answer, reports: dict[str, JSON]
    ) -> None:
        message = self._leader.verified(answer.data, (Kind.REPORT, Kind.REFUSAL))
        site = message.signer
        if message.kind == Kind.REPORT:
            message.require(self._letters.scope(site, self._number))
            heads = read_heads(message.header.get(HEADS, {}))
            self._letters.heads.take(heads.values())
            reports[site] = message.header.get("metrics")
            return
        code = str(message.header.get("code"))
        if code == StaleTerm.code:
            self._leader.heed(site, count(message.header, "term"))
        self._leader.note("rejected", self._number, {"site": site, "code": code})
        further = self._letters.holdings.refused(site, code)
        again = code in {"key_missing", "release_missing", "verification"}
        tried = 0 if further else exchange.asked.get(site, 0)
        if again and tried < _ASKS_ALLOWED:
            self._ask(exchange, site)
        else:
            reports[site] = None
            self._refused[site] = code
