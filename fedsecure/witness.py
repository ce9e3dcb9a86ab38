"""Is this site's ledger as long as others remember it? Asked before anything is paid.

A ledger that was put back from a backup, or that a clone of the machine writes on in
another place, verifies line by line. What others keep of its head tells them apart: the
aggregators return it in every request, the other sites remember it for them, and the
own outbox holds the head of each answer (RESILIENCE.md S10, PRIVACY.md section 8).
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from fedsecure.client_run import Identity, Peers
from fedsecure.envelope import Verified
from fedsecure.errors import ClockBehind, LedgerCorrupt, VerificationError
from fedsecure.keys import VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.budget import Budget
from fedsecure.receipts import (
    HEADS,
    ROWS_A_LINE,
    SEEN,
    KnownHeads,
    SignedHead,
    heads_document,
    read_heads,
)
from fedsecure.shelf import Shelf
from fedsecure.stores import Store
from fedsecure.trainer import JSON

CLOCK_SET = "clock.set"
"""Action of a line from which on times count anew: an operator's word for the clock."""
CLOCK_BOUND = timedelta(seconds=300)
"""How far the time of day may lie before a line's: what Flower tolerates of a node."""


class Witness:
    """What a site is told of its own ledger, and what it remembers of others'.

    Parameters
    ----------
    me : Identity
    peers : Peers
        Whose keys sign whose heads.
    ledger : Ledger
        The site's own.
    budgets : mapping of str to Budget
        They get the receipts.
    """

    def __init__(
        self,
        me: Identity,
        peers: Peers,
        ledger: Ledger,
        budgets: Mapping[str, Budget],
    ) -> None:
        self._me, self._peers = me, peers
        self._ledger, self._budgets = ledger, budgets
        self._others = KnownHeads(self._key)
        self._shown: Mapping[str, SignedHead] | None = None
        for record in ledger.records():
            if record.action == SEEN:
                self._others.take(read_heads(dict(record.detail)).values())
        self._newest = _newest(ledger)

    def meet(self, request: Verified) -> None:
        """Compare with what a request shows; return only if no line is missing here.

        Nothing is written before the comparison: a ledger that is too short must not
        grow over the gap.

        Raises
        ------
        LedgerCorrupt
            The request shows a signed head of this site that its ledger does not
            reach, or reaches by another line.
        ClockBehind
            The time of day lies before the newest line's.
        VerificationError
            The heads are not well formed.
        """
        self._shown = None
        self._check_clock()
        if HEADS not in request.header:
            return
        shown = read_heads(request.header[HEADS])
        own = shown.get(self._me.site)
        if own is not None and own.is_by(self._me.signing.public):
            check_head(self._ledger, own, f"aggregator {request.signer!r}")
            for budget in self._budgets.values():
                budget.receipt(request.signer, own.seq, own.hash)
        others = [head for site, head in shown.items() if site != self._me.site]
        rose = self._others.take(others)
        for start in range(0, len(rose), ROWS_A_LINE):
            few = heads_document(rose[start : start + ROWS_A_LINE])
            self._ledger.append(SEEN, request.signer, detail=few)
        self._shown = shown

    def require(self) -> None:
        """Return only if the request at hand said what is known of this ledger.

        Raises
        ------
        LedgerCorrupt
            It did not: without a witness nothing new is reserved.
        """
        if self._shown is None:
            raise LedgerCorrupt(
                f"ledger of {self._me.site}: nobody said how long it is known to be; "
                "nothing is reserved before a request of an aggregator shows its heads"
            )

    def document(self) -> dict[str, JSON]:
        """Return the own head for an answer, and the others' the request lacked."""
        head = self._ledger.head
        own = SignedHead.make(
            self._me.site, head.seq, bytes.fromhex(head.hash), self._me.signing
        )
        return heads_document([own, *self._others.longer_than(self._shown or {})])

    def _check_clock(self) -> None:
        last = max(self._newest, self._ledger.records()[-1].time)
        now = self._ledger.wall()
        if now < datetime.fromisoformat(last) - CLOCK_BOUND:
            raise ClockBehind(
                f"the clock says {now.isoformat(timespec='seconds')}, the ledger of "
                f"{self._me.site} has a line of {last}: more than "
                f"{CLOCK_BOUND.seconds} s back, so an expired policy could serve "
                "again. Set the clock; if it is right and once ran ahead, end the node "
                "and run `fedsecure ledger clock --kit KIT`. Nothing was touched"
            )
        self._newest = last

    def _key(self, site: str) -> VerifyKey | None:
        try:
            return self._peers.site(site)
        except VerificationError:
            return None


def check_head(ledger: Ledger, head: SignedHead, holder: str) -> None:
    """Return only if a ledger has the line a signed head names.

    Parameters
    ----------
    holder : str
        Who kept the head, for the message.

    Raises
    ------
    LedgerCorrupt
        With the lines that are missing, or the line that is another one.
    """
    records = ledger.records()
    if head.seq <= len(records):
        found = records[head.seq - 1].hash
        if found == head.hash.hex():
            return
        what = (
            f"line {head.seq} is {found[:12]} here and {head.hash.hex()[:12]} in the "
            f"head that {holder} keeps: two ledgers went on from one"
        )
    else:
        what = (
            f"it ends at line {len(records)}, {holder} keeps its signed head of line "
            f"{head.seq}: lines {len(records) + 1} to {head.seq} are missing"
        )
    raise LedgerCorrupt(
        f"ledger of {head.site}: {what}. A backup was put back, or a clone of this "
        "machine runs. Nothing is trained on: end the clone, put back the longest "
        "ledger and compare the two with `fedsecure ledger verify`; if the lines are "
        "lost for good, so is the account of this data set: retire its id"
    )


def check_outbox(
    ledger: Ledger, store: Store, me: Identity, max_bytes: int = 1 << 30
) -> None:
    """Return only if the ledger reaches the heads in the site's own answers.

    At start, before anything is written: a ledger that was put back alone is found
    without anybody's help.

    Raises
    ------
    LedgerCorrupt
        An answer lies in the outbox that was made from a longer ledger.
    """
    for run, number in _last_answers(store):
        kept = Shelf(store, run, max_bytes).answer(number)
        header = {} if kept is None else json.loads(kept.head.header)
        own = read_heads(header.get(HEADS, {})).get(me.site)
        if own is not None and own.is_by(me.signing.public):
            check_head(ledger, own, f"the outbox of run {run!r}, round {number},")


def _newest(ledger: Ledger) -> str:
    """Return the latest time of the lines since the clock was last said to be right."""
    newest = ""
    for record in ledger.records():
        newest = record.time if record.action == CLOCK_SET else max(newest, record.time)
    return newest


def _last_answers(store: Store) -> Iterator[tuple[str, int]]:
    last: dict[str, int] = {}
    for key in store.keys(""):
        run, _, name = key.partition("/")
        folder, _, number = name.partition("/")
        if folder == "out" and number.isdecimal() and int(number):
            last[run] = max(last.get(run, 0), int(number))
    yield from last.items()
