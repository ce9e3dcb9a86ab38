"""A round's release, signed and on its way: the sum is read twice and never joined."""

from itertools import chain

from fedsecure.body import BodySum
from fedsecure.envelope import Kind, Scope, sign_head
from fedsecure.flower.leader import Leader
from fedsecure.outgoing import Outgoing
from fedsecure.release import Release, release_of
from fedsecure.server_round import Closed, Opening
from fedsecure.trainer import JSON


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
