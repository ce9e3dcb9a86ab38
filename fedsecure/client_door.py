"""Which requests a site listens to: of an aggregator, for it, under no older term."""

from collections import Counter

from fedsecure import parts
from fedsecure.client_run import Identity, Peers
from fedsecure.envelope import Envelope, Kind, Verified, verify
from fedsecure.errors import StaleTerm, VerificationError
from fedsecure.ledger import Ledger
from fedsecure.witness import Witness

REQUESTS = (Kind.BEGIN_REQUEST, Kind.REQUEST, Kind.UNMASK_REQUEST)


class Door:
    """Checks every request before anything else looks at it (RESILIENCE S4).

    Parameters
    ----------
    me : Identity
    peers : Peers
        The roster.
    ledger : Ledger
        The site's own; it keeps the highest term seen of each run.
    witness : Witness
    """

    def __init__(
        self, me: Identity, peers: Peers, ledger: Ledger, witness: Witness
    ) -> None:
        self._me = me
        self._peers = peers
        self._ledger = ledger
        self._witness = witness
        # A run's terms are its own lease's; a line without a run counts for every run.
        self._terms = Counter[str]()
        for record in ledger.records():
            self._terms[record.run] = max(self._terms[record.run], record.term)

    def seen(self, run: str) -> int:
        """Return the highest term seen of a run."""
        return max(self._terms[run], self._terms[""])

    def checked(self, envelope: Envelope) -> Verified:
        """Return a request this site listens to; a new term is durable before.

        Raises
        ------
        VerificationError
            Not signed by an aggregator of the roster, no request, or for another site.
        StaleTerm
            A newer leadership was seen.
        LedgerCorrupt, ClockBehind
            Others remember another ledger than this site has; see `Witness.meet`.
        """
        signer = self._peers.aggregator(envelope.signer)
        request = verify(envelope, signer, kinds=REQUESTS)
        if request.scope.site != self._me.site:
            raise VerificationError(f"message is for site {request.scope.site!r}")
        term = parts.count(request.header, "term")
        run = request.scope.round.run
        seen = self.seen(run)
        if term < seen:
            raise StaleTerm(f"term {term} of {run}, this site has seen {seen}", seen)
        self._witness.meet(request)
        if term > seen:
            self._ledger.append("term.seen", request.signer, run=run, term=term)
            self._terms[run] = term
        return request
