"""An aggregator's half of a round: open, accept, close, resume; pure.

It holds no key that opens anything and adds nothing up: it decides which bytes count.
The driver does what it says, in the order open (D1), update (D2), close (D3), release
(D4), publish (D5) of RESILIENCE.md section 6, each durable before the next.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedsecure.envelope import Envelope, Kind, Scope, canonical, verify
from fedsecure.errors import (
    ConfigurationError,
    FedsecureError,
    StaleTerm,
    VerificationError,
)
from fedsecure.keys import VerifyKey
from fedsecure.metadata import JournalEntry, Step
from fedsecure.parts import count
from fedsecure.receipts import HEADS, SignedHead, heads_document, read_heads
from fedsecure.release import BROUGHT, root
from fedsecure.trainer import JSON
from fedsecure.update import RoundId


@dataclass(frozen=True, slots=True)
class Opening:
    """What is fixed when a round opens (D1).

    Attributes
    ----------
    round : RoundId
    cohort : tuple of str
        Sites that are asked.
    min_contributors : int
        Fewer than this, and the round is skipped.
    deadline : float
        Seconds from the opening, or from the take-over, until it closes.
    input_digest : bytes
        Release of the round before, or the first model's digest.
    key_id, layout, plan : bytes
        What updates must be made under.
    """

    round: RoundId
    cohort: tuple[str, ...]
    min_contributors: int
    deadline: float
    input_digest: bytes
    key_id: bytes
    layout: bytes
    plan: bytes

    def scope(self, site: str) -> Scope:
        """Return what an update of `site` must be signed for."""
        return Scope(self.round, site, self.key_id, self.layout, self.plan)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An update that counts once its bytes and its row are durable.

    `object` is where its bytes lie; a round with a key of its own names it anew (see
    `flower.updates`).
    `heads` are those of ledgers that came with it: its site's, and others' it knows;
    `brought` is the last round whose release a standby had brought the site.
    """

    site: str
    digest: bytes
    object: str
    size: int
    metrics: Mapping[str, JSON]
    heads: tuple[SignedHead, ...] = ()
    brought: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """An answer that does not count; the round goes on.

    `ask_again` says whether the site may still contribute to this round; `seen` is the
    highest term the site knows, if it refused an older one.
    """

    site: str
    code: str
    reason: str
    ask_again: bool
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Closed:
    """The participants, fixed for good (D3)."""

    round: RoundId
    participants: tuple[tuple[str, bytes], ...]
    root: bytes


class ServerRound:
    """One round as its leader sees it.

    Parameters
    ----------
    opening : Opening
    keys : mapping of str to VerifyKey
        Signing keys of the cohort.
    opened_at : float
        Seconds of the caller's clock.
    """

    def __init__(
        self, opening: Opening, keys: Mapping[str, VerifyKey], opened_at: float
    ) -> None:
        self.opening = opening
        self._keys = keys
        self._ends = opened_at + opening.deadline
        self._taken: dict[str, Accepted] = {}
        self._out: set[str] = set()
        self._closed: Closed | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites that may still contribute, in cohort order."""
        gone = self._taken.keys() | self._out
        return tuple(s for s in self.opening.cohort if s not in gone)

    @property
    def taken(self) -> tuple[Accepted, ...]:
        """Updates that count, in the order accepted."""
        return tuple(self._taken.values())

    @property
    def ends(self) -> float:
        """When the round closes at the latest."""
        return self._ends

    def accept(self, envelope: Envelope, now: float) -> Accepted | Rejected:
        """Judge one answer: signature, scope, repeat, lateness.

        A `Rejected` is a value and no error, so that the round goes on.
        """
        site = envelope.signer
        if site not in self.opening.cohort:
            return Rejected(site, "stranger", f"{site!r} is not in the cohort", False)
        try:
            return self._judge(envelope, site, now)
        except FedsecureError as bad:
            code = str(getattr(bad, "code", "failed"))
            return Rejected(site, code, str(bad), ask_again=True)

    def take(self, accepted: Accepted) -> None:
        """Count an accepted update; call once its row is durable."""
        self._taken[accepted.site] = accepted

    def leave_out(self, site: str) -> None:
        """Count on `site` no longer in this round."""
        if site not in self._taken:
            self._out.add(site)

    def close(self, now: float) -> Closed | None:
        """Return the closed set, or None while neither quorum nor deadline is reached.

        All missing answered, or the deadline is over with the quorum met.
        """
        if self._closed is not None:
            return self._closed
        if len(self._taken) < self.opening.min_contributors:
            return None
        if self.missing and now < self._ends:
            return None
        rows = tuple(sorted((a.site, a.digest) for a in self.taken))
        self._closed = Closed(self.opening.round, rows, root(rows))
        return self._closed

    def failed(self, now: float) -> bool:
        """Return whether the quorum can no longer be met."""
        reachable = len(self._taken) + (len(self.missing) if now < self._ends else 0)
        return self._closed is None and reachable < self.opening.min_contributors

    def closed_as(self, closed: Closed) -> None:
        """Adopt a journalled CLOSE: it is never decided again."""
        self._closed = closed

    def _judge(self, envelope: Envelope, site: str, now: float) -> Accepted | Rejected:
        message = verify(envelope, self._keys[site], kinds=(Kind.UPDATE, Kind.REFUSAL))
        if message.kind == Kind.REFUSAL:
            return _refused(site, message.header)
        message.require(self.opening.scope(site))
        if message.header.get("input") != self.opening.input_digest.hex():
            raise VerificationError(f"update of {site} starts from another input")
        if self._closed is not None or now >= self._ends:
            return Rejected(site, "late", "the round is closed", ask_again=False)
        known = self._taken.get(site)
        if known is not None:
            return _repeat(site, same=known.digest == message.digest)
        metrics = message.header.get("metrics")
        name = hashlib.sha256(message.digest + b"object").hexdigest()
        size = len(envelope.body)
        kept = metrics if isinstance(metrics, dict) else {}
        heads = tuple(read_heads(message.header.get(HEADS, {})).values())
        told = count(message.header, BROUGHT) if BROUGHT in message.header else 0
        return Accepted(
            site, message.digest, f"update/{name}", size, kept, heads, brought=told
        )


# --- entries of the journal -----------------------------------------------------------


def open_entry(opening: Opening, operation: str) -> JournalEntry:
    """Return the OPEN entry (D1)."""
    detail: dict[str, JSON] = {
        "cohort": list(opening.cohort),
        "min_contributors": opening.min_contributors,
        "deadline": opening.deadline,
        "input": opening.input_digest.hex(),
        "key_id": opening.key_id.hex(),
        "layout": opening.layout.hex(),
        "plan": opening.plan.hex(),
    }
    return _entry(opening.round, Step.OPEN, "", operation, detail)


def update_entry(round_id: RoundId, accepted: Accepted, operation: str) -> JournalEntry:
    """Return the UPDATE entry (D2)."""
    detail: dict[str, JSON] = {
        "digest": accepted.digest.hex(),
        "object": accepted.object,
        "size": accepted.size,
        "metrics": dict(accepted.metrics),
        "heads": heads_document(accepted.heads),
    }
    return _entry(round_id, Step.UPDATE, accepted.site, operation, detail)


def close_entry(closed: Closed, operation: str) -> JournalEntry:
    """Return the CLOSE entry (D3)."""
    rows: list[JSON] = [[site, digest.hex()] for site, digest in closed.participants]
    detail: dict[str, JSON] = {"participants": rows, "root": closed.root.hex()}
    return _entry(closed.round, Step.CLOSE, "", operation, detail)


def plain_entry(
    round_id: RoundId, step: Step, operation: str, detail: Mapping[str, JSON]
) -> JournalEntry:
    """Return an entry without a site: BEGIN, SKIP, PUBLISH."""
    return _entry(round_id, step, "", operation, detail)


def resume(
    entries: Iterable[JournalEntry], keys: Mapping[str, VerifyKey], now: float
) -> ServerRound | None:
    """Rebuild a round from its journal entries; None if it was never opened.

    The cohort and the input stay; the deadline starts again at the take-over.

    Raises
    ------
    VerificationError
        The journal contradicts itself.
    """
    found: ServerRound | None = None
    for entry in entries:
        detail = read_detail(entry)
        if entry.step in {Step.BEGIN, Step.KEY}:  # a run key's, or the updates' own
            continue
        if entry.step == Step.OPEN:
            opening = _read_opening(RoundId(entry.run, entry.round), detail)
            found = ServerRound(opening, keys, now)
        elif found is None:
            raise VerificationError(f"journal: {entry.step} before open")
        elif entry.step == Step.UPDATE:
            found.take(_read_accepted(entry.site, detail))
        elif entry.step == Step.CLOSE:
            found.closed_as(_read_closed(RoundId(entry.run, entry.round), detail))
    return found


def read_detail(entry: JournalEntry) -> Mapping[str, JSON]:
    """Return an entry's detail as a JSON object.

    Raises
    ------
    VerificationError
        It is not one.
    """
    try:
        value = json.loads(entry.detail)
    except (ValueError, RecursionError) as bad:
        raise VerificationError(f"journal: {entry.step} detail is not JSON") from bad
    if not isinstance(value, dict):
        raise VerificationError(f"journal: {entry.step} detail is not an object")
    return value


def _entry(
    round_id: RoundId,
    step: Step,
    site: str,
    operation: str,
    detail: Mapping[str, JSON],
) -> JournalEntry:
    data = canonical(detail)
    return JournalEntry(round_id.run, round_id.number, step, site, operation, data)


def _refused(site: str, header: Mapping[str, JSON]) -> Rejected:
    code = str(header.get("code", "refused"))
    # Only what another request can mend is asked again in the same round.
    again = code in {"key_missing", "release_missing", "verification", "failed"}
    term = header.get("term") if code == StaleTerm.code else 0
    seen = term if isinstance(term, int) else 0
    return Rejected(site, code, f"{site} refused: {code}", ask_again=again, seen=seen)


def _repeat(site: str, *, same: bool) -> Rejected:
    if same:
        return Rejected(site, "repeat", "the same update again", ask_again=False)
    return Rejected(site, "second_update", "another update of one round", False)


def _read_opening(round_id: RoundId, detail: Mapping[str, JSON]) -> Opening:
    try:
        cohort = detail["cohort"]
        return Opening(
            round_id,
            tuple(str(site) for site in _list(cohort)),
            int(str(detail["min_contributors"])),
            float(str(detail["deadline"])),
            *(
                bytes.fromhex(str(detail[name]))
                for name in ("input", "key_id", "layout", "plan")
            ),
        )
    except (KeyError, ValueError, TypeError, ConfigurationError) as bad:
        raise VerificationError(f"journal: OPEN is not well formed: {bad}") from bad


def _read_accepted(site: str, detail: Mapping[str, JSON]) -> Accepted:
    try:
        metrics = detail["metrics"]
        return Accepted(
            site,
            bytes.fromhex(str(detail["digest"])),
            str(detail["object"]),
            int(str(detail["size"])),
            metrics if isinstance(metrics, dict) else {},
        )
    except (KeyError, ValueError) as bad:
        raise VerificationError(f"journal: UPDATE is not well formed: {bad}") from bad


def _read_closed(round_id: RoundId, detail: Mapping[str, JSON]) -> Closed:
    rows = detail.get("participants")
    if not isinstance(rows, list):
        raise VerificationError("journal: CLOSE names no participants")
    pairs = tuple(_pair(row) for row in rows)
    if root(pairs).hex() != detail.get("root"):
        raise VerificationError("journal: CLOSE does not match its own root")
    return Closed(round_id, pairs, root(pairs))


def _pair(row: JSON) -> tuple[str, bytes]:
    try:
        site, digest = _list(row)
        return str(site), bytes.fromhex(str(digest))
    except ValueError as bad:
        raise VerificationError(f"journal: CLOSE is not well formed: {bad}") from bad


def _list(value: JSON) -> list[JSON]:
    if not isinstance(value, list):
        raise VerificationError("journal: a list is missing")
    return value
