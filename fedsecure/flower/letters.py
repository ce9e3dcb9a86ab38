"""What each site is sent: only what it does not have yet."""

from collections.abc import Callable

from fedsecure import parts
from fedsecure.envelope import Kind, Scope
from fedsecure.flower.beginning import Beginning, RunKey
from fedsecure.flower.heads import Heads
from fedsecure.flower.holdings import Holdings
from fedsecure.flower.leader import Leader
from fedsecure.metadata import Head
from fedsecure.outgoing import Bytes
from fedsecure.receipts import HEADS
from fedsecure.release import ELSEWHERE
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

_ROOM = 1 << 20
"""Bytes of a message that are kept for its head: plan, heads of ledgers, listing."""
_POLLS = 10.0
"""Seconds for two polls of a supernode, a process start and a standby's look."""
_SLOWEST = 4e6
"""Bytes a second of a link on which a release is still worth waiting for."""
_SHARE = 3
"""A site waits for what a standby brings this part of a round's deadline at most."""


class Letters:
    """Makes requests that hold what a site does not have.

    Attributes
    ----------
    heads : Heads
        Of the sites' ledgers.
    holdings : Holdings
        What each site has shown to hold.
    """

    def __init__(self, leader: Leader, began: Beginning) -> None:
        self._leader = leader
        self._began = began
        self.heads = Heads(leader)
        self.holdings = Holdings(leader, began)

    def begin_anew(self, began: Beginning) -> None:
        """Send the keys of a changed beginning from now on."""
        self._began = began
        self.holdings.begin_anew(began)

    def last_release(self) -> tuple[int, bytes]:
        """Return round and digest of what the next round starts from.

        Round 0 and the first model's digest before the first release.
        """
        head = self._leader.tools.journal.head(self._leader.terms.run)
        if head is None:
            return 0, self._began.first
        return head.round, self._leader.tools.vault.digest(head)

    def scope(self, site: str, number: int) -> Scope:
        """Return what a round's letter to a site, and its answer, are signed for."""
        round_id, plan = (
            RoundId(self._leader.terms.run, number),
            self._leader.terms.plan_digest,
        )
        key_id = self._began.at(number).key_id
        return Scope(round_id, site, key_id, self._began.layout, plan)

    def request(self, site: str, number: int, *, train: bool) -> Callable[[], bytes]:
        """Return a letter's maker: it is made when it is sent, not before."""
        return lambda: self._make(site, number, train=train)

    def _make(self, site: str, number: int, *, train: bool) -> bytes:
        leader, holdings = self._leader, self.holdings
        keys = [k for k in self._began.keys if k.first_round > holdings.keyed(site)]
        heads = leader.heads(holdings.opened(site) + 1)
        wait = self._wait(heads) if train and holdings.brought.relied(site) else 0
        pieces = self._pieces(site, number, keys, [] if wait else heads)
        after, digest = self.last_release()
        header: dict[str, JSON] = {
            "term": leader.term,
            "plan": dict(leader.terms.plan),
            "train": train,
            "after": after,
            "input": digest.hex(),
            "keys": [
                {"first_round": k.first_round, "custodian": k.custodian} for k in keys
            ],
            "parts": parts.listing(pieces),
            HEADS: self.heads.document(),
        }
        if wait:
            header[ELSEWHERE] = wait
        scope = self.scope(site, number)
        return leader.sign(Kind.REQUEST, scope, header, parts.join(pieces))

    def _wait(self, heads: list[Head]) -> int:
        """Return the seconds a site is to wait for a standby; 0: it is sent all.

        Only the newest release is left to standbys. Whatever its size, enough of the
        round must be left for the site to say that nothing came, and to be sent it.
        """
        if len(heads) != 1:
            return 0
        size = self._leader.tools.vault.manifest(heads[0]).size
        most = self._leader.terms.deadline / _SHARE
        return int(min(_POLLS + size / _SLOWEST, most))

    def _pieces(
        self, site: str, number: int, keys: list[RunKey], heads: list[Head]
    ) -> list[tuple[str, Bytes]]:
        pieces: list[tuple[str, Bytes]] = []
        for key in keys:
            pieces.append(("statement", key.pieces["statement"]))
            pieces.append(("wrap", key.pieces[f"wrap:{site}"]))
        if self.holdings.keyed(site) < 0:
            pieces += list(self._began.pieces.items())
        vault, room = self._leader.tools.vault, self._leader.terms.max_bytes - _ROOM
        room -= sum(len(data) for _, data in pieces)
        for place, head in enumerate(heads):
            room -= vault.manifest(head).size
            if room < 0 and pieces:  # the site says what it lacks, and is sent the rest
                last = heads[place - 1].round if place else self.holdings.opened(site)
                self.holdings.sent_part(site, last, number)
                break
            pieces.append(("release", vault.read_release(head)))
        return pieces
