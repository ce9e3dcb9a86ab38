"""What each site is sent: only what it does not have yet."""

from collections.abc import Callable

from fedsecure import parts
from fedsecure.envelope import Kind, Scope
from fedsecure.flower.beginning import Beginning
from fedsecure.flower.leader import Leader
from fedsecure.outgoing import Bytes
from fedsecure.trainer import JSON
from fedsecure.update import RoundId


class Letters:
    """Makes requests, and remembers what a site has shown to hold.

    A new leader remembers nothing and sends everything again; sites know repeats.
    """

    def __init__(self, leader: Leader, began: Beginning) -> None:
        self._leader = leader
        self._began = began
        self._keyed: set[str] = set()
        self._opened: dict[str, int] = {}

    def has(self, site: str, opened: int) -> None:
        """Remember that `site` holds the key and opened releases up to a round."""
        self._keyed.add(site)
        self._opened[site] = opened

    def forget(self, site: str) -> None:
        """Send `site` everything again."""
        self._keyed.discard(site)
        self._opened.pop(site, None)

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
        return Scope(round_id, site, self._began.key_id, self._began.layout, plan)

    def request(self, site: str, number: int, *, train: bool) -> Callable[[], bytes]:
        """Return a letter's maker: it is made when it is sent, not before."""
        return lambda: self._make(site, number, train=train)

    def _make(self, site: str, number: int, *, train: bool) -> bytes:
        leader, began = self._leader, self._began
        pieces = self._pieces(site)
        after, digest = self.last_release()
        header: dict[str, JSON] = {
            "term": leader.term,
            "plan": dict(leader.terms.plan),
            "train": train,
            "after": after,
            "input": digest.hex(),
            "custodian": began.custodian,
            "parts": parts.listing(pieces),
        }
        scope = self.scope(site, number)
        return leader.sign(Kind.REQUEST, scope, header, parts.join(pieces))

    def _pieces(self, site: str) -> list[tuple[str, Bytes]]:
        began = self._began.pieces
        pieces: list[tuple[str, Bytes]] = []
        if site not in self._keyed:
            pieces.append(("statement", began["statement"]))
            pieces.append(("wrap", began[f"wrap:{site}"]))
            pieces += [(name, began[name]) for name in ("layout", "initial")]
        for head in self._leader.heads(self._opened.get(site, 0) + 1):
            pieces.append(("release", self._leader.tools.vault.read_release(head)))
        return pieces
