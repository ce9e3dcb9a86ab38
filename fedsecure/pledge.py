"""What travels behind a masked update: promises of its mask secrets, and their shares.

Site i of n has n secrets a round: at its own place the seed of its self mask, at the
place of each other site the seed of the mask both share. Whoever closes a round over a
set U needs, of each i in U, its own seed and those it shares with sites outside U
(`owed`): never both for one site, so that nothing but the sum over U is ever opened
(Bonawitz et al., CCS 2017, section 4). Known to both sides; opens nothing.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fedsecure.errors import VerificationError
from fedsecure.keys import LOCK_BYTES
from fedsecure.shares import SECRET_BYTES, SHARE_BYTES
from fedsecure.update import RoundId

Bytes: TypeAlias = bytes | bytearray | memoryview
_DIGEST_BYTES = 32
_LABEL = b"fedsecure-mask-pledge-v1\0"


@dataclass(frozen=True, slots=True)
class Pledge:
    """Promises and shares of one site's secrets of one round.

    Attributes
    ----------
    promises : tuple of bytes
        By place: digest of the secret.
    bundles : tuple of bytes
        By place: that site's shares of all n secrets, locked to it.
    """

    promises: tuple[bytes, ...]
    bundles: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return promises, then bundles; `pledge_bytes` long."""
        return b"".join((*self.promises, *self.bundles))


def bundle_bytes(sites: int) -> int:
    """Return the size of one locked bundle."""
    return LOCK_BYTES + sites * SHARE_BYTES


def pledge_bytes(sites: int) -> int:
    """Return the size of a pledge."""
    return sites * (_DIGEST_BYTES + bundle_bytes(sites))


def read_pledge(data: Bytes, sites: int) -> Pledge:
    """Return the pledge that `data` is.

    Raises
    ------
    VerificationError
        Another size than a pledge of that many sites has.
    """
    if len(data) != pledge_bytes(sites):
        raise VerificationError(
            f"mask pledge of {len(data)} bytes, must be {pledge_bytes(sites)} for "
            f"{sites} sites"
        )
    return Pledge(
        tuple(cut(data[: sites * _DIGEST_BYTES], _DIGEST_BYTES)),
        tuple(cut(data[sites * _DIGEST_BYTES :], bundle_bytes(sites))),
    )


def promise(round_id: RoundId, owner: int, place: int, secret: bytes) -> bytes:
    """Return the digest by which a site stands for one of its secrets; 32 bytes.

    It hides the secret, which has 128 random bits.
    """
    scope = f"{round_id.run}|{round_id.number}|{owner}|{place}|".encode()
    return hashlib.sha256(_LABEL + scope + secret).digest()


def owed(sites: Sequence[str], participants: Collection[str]) -> list[tuple[int, int]]:
    """Return whose secrets open the sum over `participants`: (owner, place) pairs.

    In the order in which shares and opened secrets are listed everywhere.
    """
    outside = [k for k, site in enumerate(sites) if site not in participants]
    return [
        (i, place)
        for i, site in enumerate(sites)
        if site in participants
        for place in (i, *outside)
    ]


def cut(data: Bytes, size: int) -> list[bytes]:
    """Return `data` in pieces of `size` bytes.

    Raises
    ------
    VerificationError
        It does not divide evenly.
    """
    if len(data) % size:
        raise VerificationError(f"{len(data)} bytes are no list of {size} bytes each")
    return [bytes(data[i : i + size]) for i in range(0, len(data), size)]


def read_secrets(data: Bytes, count: int) -> list[bytes]:
    """Return the opened secrets of a release, in the order of `owed`.

    Raises
    ------
    VerificationError
        Another number of them.
    """
    found = cut(data, SECRET_BYTES)
    if len(found) != count:
        raise VerificationError(f"{len(found)} mask secrets, must be {count}")
    return found
