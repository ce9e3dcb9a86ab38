"""A federation in one thread whose lease, journal and head lie in a real engine."""

from collections.abc import Callable
from dataclasses import replace

from fedsecure.errors import LeaseLost
from fedsecure.flower.leader import Leader
from fedsecure.metadata import Engine, JournalEntry
from tests.fakes.federation import Federation
from tests.fakes.fuses import Fuse, FusedJournal

_TTL = 60.0


class Served(Federation):
    """Sites and stores of `Federation`, over an engine that keeps its word or breaks.

    Parameters
    ----------
    board : Engine
        Holds nothing yet.
    """

    def __init__(self, board: Engine) -> None:
        super().__init__(sites=2, rounds=2, private=False)
        self.board = board

    def leader(
        self,
        name: str,
        fuse: Fuse | None = None,
        check: Callable[[], None] | None = None,
    ) -> Leader:
        """Return a leadership under the next term, the old lease being over."""
        board, fuse = self.board, fuse or Fuse(name)
        old = board.leases.read()
        if old is not None:
            board.leases.release(old)
        lease = board.leases.acquire(name, "", _TTL)
        assert lease is not None

        def holds() -> None:
            if board.leases.read() != lease:
                raise LeaseLost(f"term {lease.term} is over")

        made = super().leader(name, fuse, check)
        self.terms_led[-1] = lease.term
        tools = replace(made.tools, journal=FusedJournal(board.journal, fuse))
        return replace(made, tools=tools, term=lease.term, check=check or holds)

    def models(self) -> dict[str, bytes]:
        """Return the last model of every site, bit for bit; empty: it has none."""
        head = self.board.journal.head(self.run)
        assert head is not None
        out = {}
        for name, site in self.sites.items():
            model = site.shelf(self.run).model(head.round)
            out[name] = b"" if model is None else model.tobytes()
        return out

    def journal(self) -> list[JournalEntry]:
        """Return the whole journal of the run."""
        return list(self.board.journal.entries(self.run, 0))
