"""A lost engine made again from the stores: what a run needs to go on, and no more.

Rebuilt: BEGIN (run key, layout, first model), every RELEASE, the head. Lost for good:
the rows of the open round, its key among them, and skipped rounds, which are asked
again under the same numbers. The open round opens anew under a new key; its sites send
the same bytes again from their outboxes, which lie under new names then. The copies
under the lost key open for nobody and are named by nobody: `checkpoint gc` removes them
after its grace period. Every write is under a term above all seen here; a site that has
seen a higher one says so (RESILIENCE.md section 4, term floor). An operator's act,
never automatic.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedsecure import parts
from fedsecure.checkpoint.chain import Chain
from fedsecure.checkpoint.manifest import Manifest
from fedsecure.envelope import Verified, canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.ledger import Record
from fedsecure.metadata import Engine, Head, JournalEntry, Step, release_entry
from fedsecure.update import JSON

LEASE_SECONDS = 60.0
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What is written into a new engine.

    Attributes
    ----------
    run : str
    entries : tuple of JournalEntry
        BEGINs, then RELEASEs, in order.
    head : Head
        None: nothing was released.
    floor : int
        The highest term seen.
    """

    run: str
    entries: tuple[JournalEntry, ...]
    head: Head | None
    floor: int


def rebuilt(
    chain: Chain,
    begins: Iterable[Verified],
    lines: Iterable[Record],
    diary: Iterable[JournalEntry] = (),
) -> Rebuilt:
    """Return what a run's engine has to hold; pure.

    Parameters
    ----------
    begins : iterable of Verified
        Beginnings of this run, each once.
    lines : iterable of Record
        The aggregator's own ledger: nothing it released may be missing.
    diary : iterable of JournalEntry
        The journal as a backup kept it: its BEGINs are taken as they are.

    Raises
    ------
    VerificationError
        The chain has a gap, is shorter than the ledger says, or a key is not known.
    """
    if chain.missing:
        raise VerificationError(
            f"run {chain.run}: a manifest before number {chain.links[0].sequence} is "
            "on no store that answers: bring the other stores back, then try again"
        )
    of_run = [line for line in lines if line.run == chain.run]
    _refuse_shorter(chain, of_run)
    heads = [_head(m) for m in chain.links]
    noted = {e.round: e for e in diary if e.step == Step.BEGIN and e.run == chain.run}
    chosen = _begins(chain, list(begins), noted)
    terms = [0, *(m.term for m in chain.links), *(line.term for line in of_run)]
    made = {m.scope.round.number: _begin_entry(m) for m in chosen} | noted
    entries = [made[number] for number in sorted(made)]
    entries += [release_entry(head) for head in heads]
    last = heads[-1] if heads else None
    return Rebuilt(chain.run, tuple(entries), last, max(terms))


def write(engine: Engine, made: Rebuilt, holder: str, address: str) -> int:
    """Fill an engine under a lease of its own, and return the term; idempotent.

    All RELEASE rows but the head's come before it: who would lead after a crash in
    between finds "release before open" and stops. Where there is one release only, it
    opens round 1 again, which sites answer with the same bytes.

    Raises
    ------
    ConfigurationError
        Somebody leads, or the engine knows this run: it is not lost.
    StaleTerm, StorageError
        Not written; try again.
    """
    journal = engine.journal
    lease = engine.leases.acquire(holder, address, LEASE_SECONDS)
    if lease is None:
        raise ConfigurationError(
            "somebody leads, or led until now: stop every aggregator of the run, then "
            "try again"
        )
    try:
        head, known = journal.head(made.run), list(journal.entries(made.run, 0))
        _refuse_known(made, head, known)
        term = max(lease.term, made.floor + 1)
        # The last release's row comes with the head: a head moves once a round.
        last = None if made.head is None else release_entry(made.head)
        rows = [entry for entry in made.entries if entry != last]
        for start in range(0, len(rows), _BATCH):
            journal.append(term, rows[start : start + _BATCH])
            engine.leases.renew(lease)
        if made.head is not None and head is None:
            new = Head(
                made.run,
                made.head.round,
                made.head.sequence,
                made.head.manifest,
                term,
            )
            journal.advance(term, None, new)
    finally:
        engine.leases.release(lease)
    return term


def _refuse_known(
    made: Rebuilt, head: Head | None, known: Sequence[JournalEntry]
) -> None:
    strange = [entry for entry in known if entry not in made.entries]
    tip = None if made.head is None else made.head.manifest
    if strange or (head is not None and head.manifest != tip):
        raise ConfigurationError(
            f"the engine knows run {made.run} ({len(known)} rows): it is not lost, "
            "and nothing is written over it"
        )


def _refuse_shorter(chain: Chain, lines: Sequence[Record]) -> None:
    known = {m.round: m.release for m in chain.links}
    for line in lines:
        if line.action == "round.release" and known.get(line.round) != line.object:
            raise VerificationError(
                f"run {chain.run}: this aggregator's ledger has release "
                f"{line.object[:12]} of round {line.round}, the stores that answer do "
                "not: bring the other stores back, then try again"
            )


def _begins(
    chain: Chain, found: Sequence[Verified], noted: Mapping[int, JournalEntry]
) -> list[Verified]:
    """Return the beginning of each round that has one: the key that was used.

    Raises
    ------
    VerificationError
        None for round 0, a key that releases were under is missing, or two of one
        round and nothing says which was used.
    """
    used = {manifest.key_id for manifest in chain.links}
    rounds: dict[int, list[Verified]] = {}
    for message in found:
        if message.scope.round.number not in noted:
            rounds.setdefault(message.scope.round.number, []).append(message)
    chosen = []
    for number in sorted(rounds):
        candidates = rounds[number]
        right = [m for m in candidates if m.scope.key_id.hex() in used] or candidates
        if len(right) > 1:
            raise VerificationError(
                f"run {chain.run}: {len(right)} run keys were made for round {number} "
                "and no release says which one the sites have: move all but one "
                "begin/ object out of the stores"
            )
        chosen += right
    known = {message.scope.key_id.hex() for message in chosen}
    known |= {str(json.loads(entry.detail).get("key_id")) for entry in noted.values()}
    if used - known or 0 not in {*rounds, *noted}:
        raise VerificationError(
            f"run {chain.run}: the beginning of its key is on no store that answers: "
            "bring the other stores back, then try again"
        )
    return chosen


def _begin_entry(message: Verified) -> JournalEntry:
    detail: dict[str, JSON] = {}
    number = message.scope.round.number
    if number == 0:
        pieces = dict(parts.split(message))
        if not {"layout", "initial"} <= set(pieces):
            raise VerificationError(
                f"run {message.scope.round.run} began with a model that was handed to "
                "its strategy: the stores do not hold it, so its engine cannot be made "
                "again; start a new run from that model"
            )
        detail["layout"] = hashlib.sha256(pieces["layout"]).hexdigest()
        detail["first"] = hashlib.sha256(pieces["initial"]).hexdigest()
    detail["object"] = f"begin/{message.digest.hex()}"
    detail["custodian"] = message.signer
    detail["key_id"] = message.scope.key_id.hex()
    return JournalEntry(
        message.scope.round.run,
        number,
        Step.BEGIN,
        "",
        f"begin-{message.digest.hex()}",
        canonical(detail),
    )


def _head(manifest: Manifest) -> Head:
    return Head(
        manifest.run,
        manifest.round,
        manifest.sequence,
        manifest.digest(),
        manifest.term,
    )
