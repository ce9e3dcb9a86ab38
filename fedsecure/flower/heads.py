"""What an aggregator remembers of the sites' ledgers: the longest head of each.

Durable in three places: in the journal's UPDATE rows, where a successor finds them, in
the last release's manifest, where one does whose engine was lost, and in the
aggregator's own ledger, where the next run does.
"""

import json
from collections.abc import Iterable

from fedsecure.flower.leader import Leader
from fedsecure.metadata import Step
from fedsecure.receipts import (
    ROWS_A_LINE,
    SEEN,
    KnownHeads,
    SignedHead,
    heads_document,
    read_heads,
)
from fedsecure.server_round import read_detail
from fedsecure.trainer import JSON


class Heads:
    """The heads one leadership knows, from its own ledger, the journal and answers."""

    def __init__(self, leader: Leader) -> None:
        self._ledger = leader.tools.ledger
        self._known = KnownHeads(leader.tools.keys.get)
        self._unkept: dict[str, SignedHead] = {}
        for record in self._ledger.records():
            if record.action == SEEN:
                self._known.take(read_heads(dict(record.detail)).values())
        for entry in leader.entries(1):
            if entry.step == Step.UPDATE:
                self.take(read_heads(read_detail(entry).get("heads", {})).values())
        head = leader.tools.journal.head(leader.terms.run)
        if head is not None:
            kept = leader.tools.vault.manifest(head).heads
            self.take(read_heads(json.loads(kept)).values())

    def take(self, heads: Iterable[SignedHead]) -> None:
        """Remember what an answer said, of its own site and of others."""
        self._unkept |= {head.site: head for head in self._known.take(heads)}

    def keep(self) -> None:
        """Write what is new into the aggregator's ledger; durable on return."""
        rows = list(self._unkept.values())
        for start in range(0, len(rows), ROWS_A_LINE):
            few = heads_document(rows[start : start + ROWS_A_LINE])
            self._ledger.append(SEEN, "sites", detail=few)
        self._unkept.clear()

    def document(self) -> dict[str, JSON]:
        """Return all of them as a request carries them."""
        return heads_document(self._known.longer_than({}))
