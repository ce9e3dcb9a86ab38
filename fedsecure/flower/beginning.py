"""BEGIN: a custodian site makes the run key and the first model, or a new key.

The key travels through the aggregator as wraps it cannot open (ENCRYPTION section 11).
"""

import hashlib
import logging
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from fedsecure import parts
from fedsecure.body import Form
from fedsecure.envelope import Kind, Scope, Verified
from fedsecure.errors import (
    FedsecureError,
    QuorumNotMet,
    StaleTerm,
    VerificationError,
)
from fedsecure.flower.heads import Heads
from fedsecure.flower.leader import Leader
from fedsecure.flower.post import Round
from fedsecure.metadata import JournalEntry, Step
from fedsecure.outgoing import Bytes
from fedsecure.receipts import HEADS
from fedsecure.server_round import plain_entry, read_detail
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunKey:
    """One key of a run, as an aggregator sees it: who made it, and bytes to pass on.

    Attributes
    ----------
    first_round : int
        0 for the key a run begins with; else the round it was made before.
    custodian : str
        The site that made it.
    key_id : bytes
    pieces : mapping of str to bytes
        ``statement``, ``wrap:<site>`` and ``form``.
    """

    first_round: int
    custodian: str
    key_id: bytes
    pieces: Mapping[str, Bytes]

    @property
    def form(self) -> Form:
        """How every update begins, and its open blocks where a plan leaves some."""
        return Form.read(self.pieces["form"])

    def reaches_no_other_than(self, sites: Collection[str]) -> bool:
        """Return whether all who were given it are among `sites`."""
        wraps = {n.removeprefix("wrap:") for n in self.pieces if n.startswith("wrap:")}
        return wraps <= set(sites)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What BEGIN fixed, and the keys made since.

    Attributes
    ----------
    layout, first : bytes
        Digests of layout and first model.
    pieces : mapping of str to bytes
        ``layout`` and ``initial``.
    keys : tuple of RunKey
        By first round.
    """

    layout: bytes
    first: bytes
    pieces: Mapping[str, Bytes]
    keys: tuple[RunKey, ...]

    def at(self, number: int) -> RunKey:
        """Return the key of a round."""
        return [key for key in self.keys if key.first_round <= number][-1]


def begin(leader: Leader, first: tuple[bytes, bytes] | None) -> Beginning:
    """Return the run's beginning, asking for it if it is not journalled yet.

    Parameters
    ----------
    first : tuple of bytes, optional
        Layout (canonical JSON) and first model (float64); without it the custodian
        makes them.

    Raises
    ------
    QuorumNotMet
        No custodian answered in time.
    VerificationError
        The first model given is not the one the run began with.
    """
    known = [e for e in leader.entries(0) if e.step == Step.BEGIN]
    entries = known or [_begin(leader, first)]
    detail = read_detail(entries[0])
    pieces = _pieces(leader, entries[0])
    if first is not None:
        pieces["layout"], pieces["initial"] = first
    for name, field in (("layout", "layout"), ("initial", "first")):
        if hashlib.sha256(pieces[name]).hexdigest() != detail[field]:
            raise VerificationError(f"the run began with another {name}")
    return Beginning(
        bytes.fromhex(str(detail["layout"])),
        bytes.fromhex(str(detail["first"])),
        {name: pieces[name] for name in ("layout", "initial")},
        tuple(_key(leader, entry) for entry in entries),
    )


def rotate(leader: Leader, began: Beginning, number: int) -> Beginning:
    """Return the beginning with a new run key, for round `number` and later.

    Durable before it is used: the journal's BEGIN entry of that round.

    Raises
    ------
    QuorumNotMet
        No custodian answered in time.
    """
    data = _ask_custodians(leader, number, began.pieces)
    message = leader.verified(data, (Kind.BEGIN,))
    entry = _write(leader, number, message, data, {})
    facts: dict[str, JSON] = {
        "custodian": message.signer,
        "key_id": message.scope.key_id.hex(),
    }
    leader.note("rotated", number, facts)
    return replace(began, keys=(*began.keys, _key(leader, entry)))


def _begin(leader: Leader, first: tuple[bytes, bytes] | None) -> JournalEntry:
    given = {} if first is None else {"layout": first[0], "initial": first[1]}
    data = _ask_custodians(leader, 0, given)
    message = leader.verified(data, (Kind.BEGIN,))
    pieces = dict(parts.split(message))
    layout, model = first or (pieces["layout"], pieces["initial"])
    detail: dict[str, JSON] = {
        "layout": hashlib.sha256(layout).hexdigest(),
        "first": hashlib.sha256(model).hexdigest(),
    }
    entry = _write(leader, 0, message, data, detail)
    leader.note(
        "began", 0, {"custodian": message.signer, "parameters": len(model) // 8}
    )
    return entry


def _write(
    leader: Leader,
    number: int,
    message: Verified,
    data: bytes,
    detail: Mapping[str, JSON],
) -> JournalEntry:
    name = f"begin/{message.digest.hex()}"
    leader.tools.vault.keep(name, data)
    facts: dict[str, JSON] = {
        **detail,
        "object": name,
        "custodian": message.signer,
        "key_id": message.scope.key_id.hex(),
    }
    round_id = RoundId(leader.terms.run, number)
    entry = plain_entry(round_id, Step.BEGIN, uuid.uuid4().hex, facts)
    leader.write(entry)
    return entry


def _read(leader: Leader, entry: JournalEntry) -> Verified:
    name = str(read_detail(entry)["object"])
    data = leader.tools.vault.read(name, leader.terms.max_bytes)
    return leader.verified(data, (Kind.BEGIN,))


def _pieces(leader: Leader, entry: JournalEntry) -> dict[str, Bytes]:
    return dict(parts.split(_read(leader, entry)))


def _key(leader: Leader, entry: JournalEntry) -> RunKey:
    message = _read(leader, entry)
    pieces: dict[str, Bytes] = {
        name: bytes(data)
        for name, data in parts.split(message)
        if name not in {"layout", "initial"}
    }
    return RunKey(entry.round, message.signer, message.scope.key_id, pieces)


def _ask_custodians(leader: Leader, number: int, given: Mapping[str, Bytes]) -> bytes:
    """Ask the custodians in order; the next one after a deadline.

    Parameters
    ----------
    number : int
        0 at the beginning, else the round before which a new key is made.
    given : mapping of str to bytes
        ``layout`` and ``initial``, where there is a model: the layout goes along, for
        it says which tensors a plan leaves open. Empty: the custodian makes both.
    """
    parameters = len(given["initial"]) // 8 if given else 0
    layout = bytes(given["layout"]) if given else b""
    terms = leader.terms
    custodians = [site for site in terms.custodians if site in terms.asked]
    heads = Heads(leader).document()
    for site in custodians:
        scope = Scope(RoundId(terms.run, number), site, b"", b"", terms.plan_digest)
        header: dict[str, JSON] = {
            "term": leader.term,
            "plan": dict(terms.plan),
            "initial": not parameters,
            "parameters": parameters,
            HEADS: heads,
        }
        letter = leader.sign(Kind.BEGIN_REQUEST, scope, header, layout)
        with leader.tools.post(f"{terms.run}/begin-{number}") as exchange:
            exchange.ask(site, lambda data=letter: data)  # type: ignore[misc]
            answer = _first_good(leader, exchange, number, initial=not parameters)
        if answer is not None:
            return answer
    raise QuorumNotMet(
        f"no custodian site of {', '.join(custodians)} made the run key in "
        f"{terms.deadline:.0f} s"
    )


def _check_complete(
    leader: Leader, message: Verified, number: int, *, initial: bool
) -> None:
    """Refuse a beginning that a round would stumble over."""
    if message.scope.round != RoundId(leader.terms.run, number):
        raise VerificationError(f"it is for {message.scope.round}")
    wanted = {"statement", "form", *(f"wrap:{site}" for site in leader.terms.asked)}
    wanted |= {"layout", "initial"} if initial else set()
    pieces = dict(parts.split(message))
    missing = sorted(wanted - pieces.keys())
    if missing:
        raise VerificationError(f"its beginning lacks {', '.join(missing)}")
    size = Form.read(pieces["form"]).size
    if size > leader.terms.max_bytes:
        raise VerificationError(
            f"its form is of updates of {size} bytes, at most {leader.terms.max_bytes}"
        )


def _first_good(
    leader: Leader, exchange: Round, number: int, *, initial: bool
) -> bytes | None:
    clock = leader.tools.clock
    ends = clock.now() + leader.terms.deadline
    while (now := clock.now()) < ends:
        leader.check()
        answer = exchange.next(min(0.25, ends - now))
        if answer is None:
            continue
        exchange.done()
        try:
            message = leader.verified(answer.data, (Kind.BEGIN, Kind.REFUSAL))
            if message.kind == Kind.BEGIN:
                _check_complete(leader, message, number, initial=initial)
                return answer.data
            code = parts.text(message.header, "code")
            if code == StaleTerm.code:
                leader.heed(message.signer, parts.count(message.header, "term"))
            raise VerificationError(f"refused ({code})")
        except StaleTerm:
            raise
        except FedsecureError as bad:
            log.warning("custodian %s: %s", answer.site, bad)
            return None
    return None
