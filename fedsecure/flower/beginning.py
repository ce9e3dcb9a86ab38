"""BEGIN, once a run: the custodian site makes the run key and the first model.

The key travels through the aggregator as wraps it cannot open (ENCRYPTION section 11).
"""

import hashlib
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from fedsecure import parts
from fedsecure.ciphertext import announced_bytes
from fedsecure.envelope import Kind, Scope, Verified
from fedsecure.errors import (
    FedsecureError,
    QuorumNotMet,
    StaleTerm,
    VerificationError,
)
from fedsecure.flower.leader import Leader
from fedsecure.flower.post import Round
from fedsecure.metadata import JournalEntry, Step
from fedsecure.outgoing import Bytes
from fedsecure.server_round import plain_entry, read_detail
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What BEGIN fixed.

    Attributes
    ----------
    custodian : str
        The site that made the run key.
    key_id, layout, first : bytes
        Id of the run key; digests of layout and first model.
    pieces : mapping of str to bytes
        ``statement``, ``wrap:<site>``, ``form``, ``layout`` and ``initial``.
    """

    custodian: str
    key_id: bytes
    layout: bytes
    first: bytes
    pieces: Mapping[str, Bytes]

    @property
    def update_bytes(self) -> int:
        """Size of every update's ciphertext: the form says it for all."""
        return announced_bytes(self.pieces["form"])


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
    entry = known[0] if known else _begin(leader, first)
    detail = read_detail(entry)
    data = leader.tools.vault.read(str(detail["object"]), leader.terms.max_bytes)
    message = leader.verified(data, (Kind.BEGIN,))
    pieces: dict[str, Bytes] = dict(parts.split(message))
    if first is not None:
        pieces["layout"], pieces["initial"] = first
    for name, field in (("layout", "layout"), ("initial", "first")):
        if hashlib.sha256(pieces[name]).hexdigest() != detail[field]:
            raise VerificationError(f"the run began with another {name}")
    return Beginning(
        message.signer,
        message.scope.key_id,
        bytes.fromhex(str(detail["layout"])),
        bytes.fromhex(str(detail["first"])),
        pieces,
    )


def _begin(leader: Leader, first: tuple[bytes, bytes] | None) -> JournalEntry:
    data = _ask_custodians(leader, first)
    message = leader.verified(data, (Kind.BEGIN,))
    pieces = dict(parts.split(message))
    layout, model = first or (pieces["layout"], pieces["initial"])
    name = f"begin/{message.digest.hex()}"
    leader.tools.vault.keep(name, data)
    detail: dict[str, JSON] = {
        "object": name,
        "custodian": message.signer,
        "layout": hashlib.sha256(layout).hexdigest(),
        "first": hashlib.sha256(model).hexdigest(),
        "key_id": message.scope.key_id.hex(),
    }
    round_id = RoundId(leader.terms.run, 0)
    entry = plain_entry(round_id, Step.BEGIN, uuid.uuid4().hex, detail)
    leader.write(entry)
    leader.note(
        "began", 0, {"custodian": message.signer, "parameters": len(model) // 8}
    )
    return entry


def _ask_custodians(leader: Leader, first: tuple[bytes, bytes] | None) -> bytes:
    """Ask the custodians in order; the next one after a deadline."""
    terms = leader.terms
    for site in terms.custodians:
        scope = Scope(RoundId(terms.run, 0), site, b"", b"", terms.plan_digest)
        header: dict[str, JSON] = {
            "term": leader.term,
            "plan": dict(terms.plan),
            "initial": first is None,
            "parameters": 0 if first is None else len(first[1]) // 8,
        }
        letter = leader.sign(Kind.BEGIN_REQUEST, scope, header, b"")
        with leader.tools.post(f"{terms.run}/begin") as exchange:
            exchange.ask(site, lambda data=letter: data)  # type: ignore[misc]
            answer = _first_good(leader, exchange, initial=first is None)
        if answer is not None:
            return answer
    raise QuorumNotMet(
        f"no custodian site of {', '.join(terms.custodians)} made the run key in "
        f"{terms.deadline:.0f} s"
    )


def _check_complete(leader: Leader, message: Verified, *, initial: bool) -> None:
    """Refuse a beginning that a round would stumble over."""
    wanted = {"statement", "form", *(f"wrap:{site}" for site in leader.terms.sites)}
    wanted |= {"layout", "initial"} if initial else set()
    missing = sorted(wanted - {name for name, _ in parts.split(message)})
    if missing:
        raise VerificationError(f"its beginning lacks {', '.join(missing)}")


def _first_good(leader: Leader, exchange: Round, *, initial: bool) -> bytes | None:
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
                _check_complete(leader, message, initial=initial)
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
