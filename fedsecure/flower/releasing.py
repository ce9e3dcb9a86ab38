"""A round's release, signed and on its way: the sum is read twice and never joined."""

from itertools import chain

from fedsecure.body import BodySum
from fedsecure.envelope import Kind, Scope, canonical, sign_head
from fedsecure.flower.leader import Leader
from fedsecure.flower.letters import Letters
from fedsecure.outgoing import Outgoing
from fedsecure.release import Release, release_of
from fedsecure.server_round import Closed, Opening, close_entry
from fedsecure.trainer import JSON


def require_same(leader: Leader) -> None:
    """Return only if what was released has this configuration and code, or nothing was.

    Raises
    ------
    ConfigurationError
        It has another (RESILIENCE section 9): nothing was done.
    """
    head = leader.tools.journal.head(leader.terms.run)
    if head is not None:
        leader.tools.vault.require(head, leader.terms.plan_digest)


def release_round(
    leader: Leader,
    letters: Letters,
    opening: Opening,
    closed: Closed,
    total: BodySum,
    secrets: bytes,
) -> Release:
    """Sign a round's release, bring it onto the stores, and move the head to it.

    Raises
    ------
    LeaseLost, StaleTerm, Conflict
        Somebody else leads, or the round is not closed over this set: nothing is
        released.
    NotEnoughReplicas
        Too few stores hold it; nothing is released.
    """
    after, journal = letters.last_release()[0], leader.tools.journal
    expected = journal.head(closed.round.run)
    release, data = signed_release(leader, opening, closed, after, total, secrets)
    leader.check()
    heads = canonical(letters.heads.document()).decode()
    head = leader.tools.vault.release(
        data, release, closed.root, leader.term, expected, heads
    )
    journal.advance(leader.term, expected, head, close_entry(closed, "").detail)
    return release


def signed_release(
    leader: Leader,
    opening: Opening,
    closed: Closed,
    after: int,
    total: BodySum,
    secrets: bytes,
) -> tuple[Release, Outgoing]:
    """Return a round's release and its signed message.

    Parameters
    ----------
    after : int
        Round of the release it builds on.
    total : BodySum
        Read now, for its digest, and whenever the message is.
    secrets : bytes
        What takes the masks off; "" where there are none.
    """
    body = Outgoing(
        total.size + len(secrets), lambda: chain(total.chunks(), (secrets,))
    )
    release = release_of(closed.round, after, dict(closed.participants), body)
    scope = Scope(closed.round, "*", opening.key_id, opening.layout, opening.plan)
    header: dict[str, JSON] = {**release.header(), "term": leader.term}
    about = len(body), release.sum_digest.hex()  # hashed once: it is the same digest
    name, key = leader.tools.name, leader.tools.signing
    head = sign_head(Kind.RELEASE, scope, header, about, signer=name, key=key)
    first = head.to_bytes()
    message = Outgoing(len(first) + len(body), lambda: chain((first,), body.pieces()))
    return release, message
