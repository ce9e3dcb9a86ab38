"""What a leader works with: the run's public facts, its tools, and its signature."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fedsecure.checkpoint.vault import Vault
from fedsecure.clock import Clock
from fedsecure.envelope import Kind, Scope, Verified, parse, sign, verify
from fedsecure.errors import StaleTerm, VerificationError
from fedsecure.flower.post import Round
from fedsecure.keys import SigningKey, VerifyKey
from fedsecure.ledger import Ledger
from fedsecure.metadata import Head, Journal, JournalEntry, Step
from fedsecure.monitor.observer import Observer
from fedsecure.outgoing import Bytes
from fedsecure.server_round import read_detail
from fedsecure.trainer import JSON

log = logging.getLogger(__name__)

TERM_JUMP = 1000
"""How far above the own term a site's word is believed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the leader runs: public facts of the plan, none of its meaning.

    Attributes
    ----------
    run : str
    plan : Mapping
        The plan's document, passed on as it is.
    plan_digest : bytes
    rounds, min_contributors, max_contributors : int
    sites, custodians : tuple of str
        All of the plan: a site's place in it is its mask shares'.
    revoked : frozenset of str
        Those of them that are asked no more.
    deadline : float
        Seconds a round stays open.
    threshold : int
        Sites whose shares open a round's masks; 0: there are none.
    max_bytes : int
        Largest message accepted.
    """

    run: str
    plan: Mapping[str, JSON]
    plan_digest: bytes
    rounds: int
    min_contributors: int
    max_contributors: int
    sites: tuple[str, ...]
    custodians: tuple[str, ...]
    deadline: float
    threshold: int = 0
    revoked: frozenset[str] = frozenset()
    max_bytes: int = 1 << 30

    @property
    def asked(self) -> tuple[str, ...]:
        """The sites that are asked, in the plan's order."""
        return tuple(site for site in self.sites if site not in self.revoked)


class Wish(Protocol):
    """An operator's wish: for a new run key, or for another leader."""

    def wanted(self) -> bool:
        """Return whether somebody asked."""
        ...

    def granted(self) -> None:
        """Forget the wish: it was granted. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What rounds are driven with; every one of them is handed in."""

    name: str
    signing: SigningKey
    keys: Mapping[str, VerifyKey]
    journal: Journal
    vault: Vault
    ledger: Ledger
    observer: Observer
    clock: Clock
    post: Callable[[str], Round]
    """Opens an exchange for a group of letters."""
    rotation: Wish


@dataclass(frozen=True, slots=True)
class Leader:
    """One leadership: terms and tools under one term.

    Attributes
    ----------
    terms : Terms
    tools : Tools
    term : int
        The fencing number everything is written under.
    check : callable
        Raises LeaseLost once this aggregator no longer leads.
    """

    terms: Terms
    tools: Tools
    term: int
    check: Callable[[], None]

    def write(self, *entries: JournalEntry) -> None:
        """Append one durable step, if this aggregator still leads; all of it or none.

        Raises
        ------
        LeaseLost, StaleTerm, Conflict
            It does not; nothing was written.
        """
        self.check()
        self.tools.journal.append(self.term, entries)

    def entries(self, first_round: int) -> list[JournalEntry]:
        """Return the run's journal from a round on."""
        return list(self.tools.journal.entries(self.terms.run, first_round))

    def heads(self, first_round: int) -> list[Head]:
        """Return the heads of the rounds released from `first_round` on, in order."""
        heads = []
        for entry in self.entries(first_round):
            if entry.step == Step.RELEASE:
                detail = read_detail(entry)
                manifest = bytes.fromhex(str(detail["manifest"]))
                sequence = int(str(detail["sequence"]))
                heads.append(
                    Head(entry.run, entry.round, sequence, manifest, self.term)
                )
        return heads

    def sign(
        self, kind: Kind, scope: Scope, header: Mapping[str, JSON], body: bytes
    ) -> bytes:
        """Return the bytes of a message signed by this aggregator."""
        tools = self.tools
        envelope = sign(kind, scope, header, body, signer=tools.name, key=tools.signing)
        return envelope.to_bytes()

    def verified(self, data: Bytes, kinds: tuple[Kind, ...]) -> Verified:
        """Return a site's message.

        Raises
        ------
        VerificationError
            Not signed by a site of this run, or of another kind.
        """
        envelope = parse(data, self.terms.max_bytes)
        key = self.tools.keys.get(envelope.signer)
        if key is None:
            raise VerificationError(f"{envelope.signer!r} is not a site of this run")
        return verify(envelope, key, kinds=kinds)

    def heed(self, site: str, seen: int) -> None:
        """Step down if a site has seen a higher term than this one.

        A metadata store that was made anew, or restored, hands out old terms; sites do
        not forget (term floor, RESILIENCE section 4). A site that claims an absurd term
        is not believed: it could stop the federation.

        Raises
        ------
        StaleTerm
            With the term to rise above.
        """
        if seen > self.term + TERM_JUMP:
            log.warning("%s claims to have seen term %d: not believed", site, seen)
        elif seen > self.term:
            raise StaleTerm(f"{site} has seen term {seen}, this is {self.term}", seen)

    def note(self, event: str, number: int, fields: Mapping[str, JSON]) -> None:
        """Tell the observer."""
        facts: dict[str, JSON] = {"round": number, "term": self.term, **fields}
        self.tools.observer.note(event, facts)
