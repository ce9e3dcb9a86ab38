"""What each site is sent: only what it does not have yet."""

from collections.abc import Callable

from fedsecure import parts
from fedsecure.envelope import Kind, Scope
from fedsecure.flower.beginning import Beginning, RunKey
from fedsecure.flower.brought import Brought
from fedsecure.flower.heads import Heads
from fedsecure.flower.leader import Leader
from fedsecure.metadata import Head
from fedsecure.outgoing import Bytes
from fedsecure.receipts import HEADS
from fedsecure.release import ELSEWHERE
from fedsecure.trainer import JSON
from fedsecure.update import RoundId


class Letters:
    """Makes requests, and remembers what a site has shown to hold.

    A new leader remembers nothing and sends everything again; sites know repeats.
    """

    def __init__(self, leader: Leader, began: Beginning) -> None:
        self._leader = leader
        self._began = began
        self.heads = Heads(leader)
        self._keyed: dict[str, int] = {}
        self._opened: dict[str, int] = {}
        self._brought = Brought()

    def begin_anew(self, began: Beginning) -> None:
        """Send the keys of a changed beginning from now on."""
        self._began = began

    def has(self, site: str, opened: int, number: int, brought: int = 0) -> None:
        """Remember that `site` holds a round's key and opened releases up to one.

        The last that a standby had brought it is that of round `brought`.
        """
        self._brought.told(site, brought, opened)
        self._keyed[site] = self._began.at(number).first_round
        self._opened[site] = opened

    def forget(self, site: str) -> None:
        """Send `site` everything again."""
        self._keyed.pop(site, None)
        self._opened.pop(site, None)
        self._brought.missed(site)

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
        leader, began = self._leader, self._began
        keys = [k for k in began.keys if k.first_round > self._keyed.get(site, -1)]
        heads = leader.heads(self._opened.get(site, 0) + 1)
        elsewhere = self._brought.relied(site) and len(heads) == 1
        pieces = self._pieces(site, keys, [] if elsewhere else heads)
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
        if elsewhere:
            header[ELSEWHERE] = leader.tools.vault.manifest(heads[0]).size
        scope = self.scope(site, number)
        return leader.sign(Kind.REQUEST, scope, header, parts.join(pieces))

    def _pieces(
        self, site: str, keys: list[RunKey], heads: list[Head]
    ) -> list[tuple[str, Bytes]]:
        pieces: list[tuple[str, Bytes]] = []
        for key in keys:
            pieces.append(("statement", key.pieces["statement"]))
            pieces.append(("wrap", key.pieces[f"wrap:{site}"]))
        if site not in self._keyed:
            pieces += list(self._began.pieces.items())
        for head in heads:
            pieces.append(("release", self._leader.tools.vault.read_release(head)))
        return pieces
