"""Shamir's secret sharing: any t of n shares give a secret back, fewer say nothing.

The polynomial is the `shamirs` package's; opening is a sum with public coefficients,
which the package computes anew for every secret and we compute once for a set of sites
(Shamir, CACM 1979).
"""

from collections.abc import Mapping, Sequence

import shamirs

from fedsecure.errors import VerificationError

SECRET_BYTES = 16
SHARE_BYTES = 17
PRIME = 2**130 - 5
"""The least prime above all secrets that has room to spare; shares are below it."""


def split(secret: bytes, sites: int, threshold: int) -> list[bytes]:
    """Return one share of 17 bytes for each of `sites` sites, in order.

    Fresh coefficients come from the system's generator.

    Parameters
    ----------
    secret : bytes
        16 bytes.
    """
    number = int.from_bytes(secret, "little")
    made = shamirs.shares(
        number, quantity=sites, modulus=PRIME, threshold=threshold, compact=True
    )
    return [share.value.to_bytes(SHARE_BYTES, "little") for share in made]


def coefficients(places: Sequence[int]) -> list[int]:
    """Return what each share is multiplied by: Lagrange's polynomials at zero.

    Parameters
    ----------
    places : sequence of int
        Whose shares they are, counted from 0; all different.
    """
    points = [place + 1 for place in places]
    out = []
    for x in points:
        top = bottom = 1
        for other in points:
            if other != x:
                top = top * other % PRIME
                bottom = bottom * (other - x) % PRIME
        out.append(top * pow(bottom, -1, PRIME) % PRIME)
    return out


def combine(shares: Mapping[int, bytes], weights: Sequence[int]) -> bytes:
    """Return the secret that the shares of the sites at these places stand for.

    Parameters
    ----------
    shares : mapping of int to bytes
        By place; in the order for which `weights` was computed.
    weights : sequence of int
        `coefficients` of the same places.

    Raises
    ------
    VerificationError
        A share out of bounds, or shares of no 16-byte secret: one of them is false.
    """
    total = 0
    for share, weight in zip(shares.values(), weights, strict=True):
        value = int.from_bytes(share, "little")
        if len(share) != SHARE_BYTES or value >= PRIME:
            raise VerificationError("a share is out of bounds")
        total = (total + value * weight) % PRIME
    if total >= 1 << (8 * SECRET_BYTES):
        raise VerificationError("the shares stand for no secret: one of them is false")
    return total.to_bytes(SECRET_BYTES, "little")
