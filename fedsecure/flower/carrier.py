"""Releases carried to sites by an aggregator that does not lead.

The leader is then not the only source of what sites must download each round: the
standbys share the sites, each sends the stored release over its own SuperLink, and the
leader's letters need only name it (docs/adr/0030). A release is signed by the leader
that made it and opened once, so a carrier needs no term and can change nothing.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from fedsecure.envelope import Kind, parse, verify
from fedsecure.errors import FedsecureError
from fedsecure.flower.leader import Terms, Tools
from fedsecure.flower.post import Answer, Round
from fedsecure.metadata import Head

log = logging.getLogger(__name__)

_PULSE = 0.25
"""Seconds between two looks at the head."""
_LONGEST = 60.0
"""Seconds after which no site waits for a release any more."""


def share(
    name: str, aggregators: Sequence[str], holder: str, sites: Sequence[str]
) -> tuple[str, ...]:
    """Return the sites that the standby `name` serves while `holder` leads.

    Standbys take turns by name, whether they live or not: a dead one's sites are the
    leader's again.
    """
    standbys = sorted(set(aggregators) - {holder})
    return tuple(
        site
        for i, site in enumerate(sites)
        if standbys and standbys[i % len(standbys)] == name
    )


class Carrier:
    """One aggregator's work while it stands by, in a thread of its own.

    A store or an engine that hangs holds up this thread, and not the aggregator: it
    must be able to lead.

    Parameters
    ----------
    terms : Terms
    tools : Tools
    aggregators : sequence of str
        All of the roster.
    least : int
        Bytes from which on a release is carried: below, a letter holds it for less
        than another message costs.
    """

    def __init__(
        self, terms: Terms, tools: Tools, aggregators: Sequence[str], least: int
    ) -> None:
        self._terms = terms
        self._tools = tools
        self._aggregators = aggregators
        self._least = least
        self._carried = 0
        self._exchange: Round | None = None
        self._last: Round | None = None
        self._until = 0.0
        self._over = threading.Event()

    def start(self, holder: Callable[[], str]) -> None:
        """Begin to carry.

        Parameters
        ----------
        holder : callable
            Who leads; "" for nobody, or this one.
        """
        threading.Thread(
            target=self._loop, args=(holder,), name="carrier", daemon=True
        ).start()

    def stop(self) -> None:
        """Carry nothing more: the run is over."""
        self._over.set()

    def turn(self, holder: str) -> None:
        """Send what was released since the last turn; take what came back."""
        if not holder:
            self._rest()
            return
        try:
            head = self._tools.journal.head(self._terms.run)
            if head is not None and head.round > self._carried:
                self._rest()
                # A SuperLink that stands still keeps threads and a release: one only.
                if self._last is None or self._last.ended:
                    self._carry(head, holder)
        except FedsecureError as bad:  # the leader sends what is not carried
            log.warning("%s carries nothing now: %s", self._tools.name, bad)
        if self._exchange is not None:
            self._drain(self._exchange)
            if self._tools.clock.now() > self._until:
                self._rest()

    def _loop(self, holder: Callable[[], str]) -> None:
        while not self._over.wait(_PULSE):
            self.turn(holder())
        self._rest()

    def _rest(self) -> None:
        if self._exchange is not None:
            self._exchange.__exit__(None, None, None)
            self._last, self._exchange = self._exchange, None

    def _carry(self, head: Head, holder: str) -> None:
        vault, size = self._tools.vault, self._tools.vault.manifest(head).size
        self._carried = head.round
        mine = share(self._tools.name, self._aggregators, holder, self._terms.asked)
        if size < self._least or not mine:
            return
        exchange = self._tools.post(f"{self._terms.run}/{head.round}/carry")
        for site in mine:
            exchange.ask(site, lambda: bytes(vault.read_release(head)))
        self._exchange, self._until = exchange, self._tools.clock.now() + _LONGEST
        log.info("carries round %d to %s: %d bytes", head.round, mine, size)

    def _drain(self, exchange: Round) -> None:
        while (answer := exchange.next(0.0)) is not None:
            exchange.done()
            try:
                self._take(answer)
            except FedsecureError as bad:
                log.warning("carry: %s: %s", answer.site, bad)

    def _take(self, answer: Answer) -> None:
        envelope = parse(answer.data, self._terms.max_bytes)
        key = self._tools.keys.get(envelope.signer)
        if key is None:
            log.warning("carry: %r is not a site of this run", envelope.signer)
            return
        kinds = (Kind.OPENED, Kind.REFUSAL)
        message = verify(envelope, key, kinds=kinds)
        opened = message.kind == Kind.OPENED
        code = "" if opened else str(message.header.get("code"))
        self._tools.observer.note(
            "carried" if opened else "not_carried",
            {"round": self._carried, "site": message.signer, "code": code},
        )
