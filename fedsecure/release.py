"""What is published once a round: who took part, and the digest of their sum.

The digest names a release without its signer, so that two leaders who finish the same
CLOSE make the same release, and a site recognises a second, different one (RESILIENCE
D4, S7).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedsecure.envelope import Verified, canonical
from fedsecure.errors import VerificationError
from fedsecure.outgoing import Outgoing
from fedsecure.parts import count
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

BROUGHT = "brought"
"""Header field of an update: the last round whose release a standby had brought."""
ELSEWHERE = "elsewhere"
"""Header field of a request: seconds to wait for the release a standby is to bring."""
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Release:
    """One round's outcome.

    Attributes
    ----------
    round : RoundId
    after : int
        Round of the release it builds on; 0: the first model.
    participants : tuple of (str, bytes)
        Site and digest of its envelope, sorted by site.
    sum_digest : bytes
        SHA-256 of the encrypted sum's bytes.
    """

    round: RoundId
    after: int
    participants: tuple[tuple[str, bytes], ...]
    sum_digest: bytes

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the participants, sorted."""
        return tuple(site for site, _ in self.participants)

    def digest(self) -> bytes:
        """Return the digest all sites and aggregators must agree on; 32 bytes."""
        return hashlib.sha256(b"release-v1\0" + canonical(self.header())).digest()

    def header(self) -> dict[str, JSON]:
        """Return the release as the fields of an envelope's header."""
        return {
            "run": self.round.run,
            "round": self.round.number,
            "after": self.after,
            "participants": [[site, d.hex()] for site, d in self.participants],
            "sum": self.sum_digest.hex(),
        }


def release_of(
    round_id: RoundId,
    after: int,
    envelopes: Mapping[str, bytes],
    total: bytes | Outgoing,
) -> Release:
    """Return the release of a closed set and its encrypted sum."""
    chosen, digest = tuple(sorted(envelopes.items())), hashlib.sha256()
    for piece in (total,) if isinstance(total, bytes) else total.pieces():
        digest.update(piece)
    return Release(round_id, after, chosen, digest.digest())


def read_release(message: Verified) -> Release:
    """Return the release a verified message carries; its body is the sum.

    Raises
    ------
    VerificationError
        Fields missing or malformed, a site twice, or a body that is not the sum named.
    """
    found = hashlib.sha256(message.body).digest()
    return read_release_head(message.header, message.scope.round, found)


def read_release_head(
    header: Mapping[str, JSON], round_id: RoundId, sum_digest: bytes
) -> Release:
    """Return the release of a verified header; see `read_release`.

    Parameters
    ----------
    sum_digest : bytes
        SHA-256 of the body, found by the caller.
    """
    release = Release(
        round_id,
        count(header, "after"),
        read_participants(header.get("participants")),
        sum_digest,
    )
    if release.after >= release.round.number:
        raise VerificationError("release builds on a later round")
    stated = {k: header.get(k) for k in release.header()}
    if stated != release.header():
        raise VerificationError("release header and release body do not agree")
    return release


def root(envelopes: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the digest of a closed set: sites and envelope digests; 32 bytes."""
    rows: list[JSON] = [[site, digest.hex()] for site, digest in sorted(envelopes)]
    return hashlib.sha256(b"participants-v1\0" + canonical(rows)).digest()


def plan_digest(document: Mapping[str, JSON]) -> bytes:
    """Return the digest by which a plan is named everywhere; 32 bytes."""
    return hashlib.sha256(canonical(document)).digest()


def read_participants(rows: JSON) -> tuple[tuple[str, bytes], ...]:
    """Return the sites of a closed set with the digests of their updates, by name.

    Raises
    ------
    VerificationError
        Not a list of [site, hexadecimal digest], sorted, each site once.
    """
    if not isinstance(rows, list) or not rows:
        raise VerificationError("release names no participants")
    out = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise VerificationError("release: a participant is not [site, digest]")
        site, digest = row
        if not isinstance(site, str) or not isinstance(digest, str):
            raise VerificationError("release: a participant is not [site, digest]")
        out.append((site, _digest(digest)))
    if sorted({site for site, _ in out}) != [site for site, _ in out]:
        raise VerificationError("release: participants are not sorted and different")
    return tuple(out)


def _digest(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError as bad:
        raise VerificationError("release: a digest is not hexadecimal") from bad
    if len(raw) != _DIGEST_BYTES:
        raise VerificationError(f"release: a digest has {len(raw)} bytes, must have 32")
    return raw
