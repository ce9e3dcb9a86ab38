"""Pairwise masks under the encryption: what a key holder opens alone is noise.

Every two sites share a mask that one adds and the other subtracts, and each site adds
one of its own, so that the aggregator together with fewer than t sites learns a sum and
nothing of a single update (Bonawitz et al., CCS 2017; ENCRYPTION.md section 13). Masks
are uniform modulo 2**48 and cover every coefficient, the tag's included.

Agreement is per run: X25519 between box keys of the signed roster, so no aggregator can
stand in the middle, bound to the run key's id. Secrets are per round: a site that drops
out gives away nothing of another round (docs/adr/0006).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsecure.encoding import PLAIN_BITS
from fedsecure.errors import VerificationError
from fedsecure.keys import (
    NONCE_BYTES,
    BoxKey,
    BoxPublic,
    derive,
    key_stream,
    lock,
    unlock,
)
from fedsecure.pledge import Pledge, cut, owed, promise
from fedsecure.shares import SECRET_BYTES, SHARE_BYTES, split
from fedsecure.update import IntVector, RoundId

_PAIR = b"fedsecure-mask-pair-v1\0"
_SECRET = b"fedsecure-mask-secret-v1\0"
_LOCK = b"fedsecure-mask-lock-v1\0"
_STREAM = b"fedsecure-mask-stream-v1\0"
_WORD = 8
_SCRATCH = 15  # the cipher asks for a block less one beyond its output
_STEP_BLOCKS = 4  # stream, zeros and sum, 128 kB each, stay in the second cache
_MASK = (1 << PLAIN_BITS) - 1


class MaskStream:
    """A sum of masks, each added or subtracted, as coefficients in order.

    Parameters
    ----------
    terms : sequence of (bytes, int)
        Secrets of 16 bytes, and +1 or -1.
    """

    def __init__(self, terms: Sequence[tuple[bytes, int]]) -> None:
        self._terms = [
            (derive(secret, _STREAM, 32), sign < 0) for secret, sign in terms
        ]

    def add(self, blocks: IntVector, first_block: int) -> None:
        """Add the masks of these blocks in place, modulo 2**48.

        Parameters
        ----------
        blocks : IntVector
            Shape (n, slots), int64 in [0, 2**48).
        first_block : int
            Number of the first of them in the update.
        """
        slots = blocks.shape[1]
        for start in range(0, len(blocks), _STEP_BLOCKS):
            part = blocks[start : start + _STEP_BLOCKS]
            total = self._total(part.size, (first_block + start) * slots)
            part += (total & np.uint64(_MASK)).astype(np.int64).reshape(part.shape)
            part &= _MASK

    def _total(self, count: int, start: int) -> NDArray[np.uint64]:
        """Return the masks' sum from word `start` on; wraps, which is modulo 2**64."""
        total = np.zeros(count, dtype=np.uint64)
        zeros, stream = bytes(count * _WORD), bytearray(count * _WORD + _SCRATCH)
        words = np.frombuffer(stream, dtype="<u8", count=count)
        for key, subtracted in self._terms:
            key_stream(key, start * _WORD, stream, zeros)
            if subtracted:
                total -= words
            else:
                total += words
        return total


@dataclass(frozen=True, slots=True, repr=False)
class MaskKeys:
    """A site's agreements with every site of a run; never printed.

    Attributes
    ----------
    site : str
        This one.
    sites : tuple of str
        All of the run, in the plan's order: a site's place in it is its share's.
    """

    site: str
    sites: tuple[str, ...]
    _pairs: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def agree(
        cls,
        box: BoxKey,
        boxes: Mapping[str, BoxPublic],
        site: str,
        scope: str,
        key_id: bytes,
    ) -> "MaskKeys":
        """Agree a key with each site of a run, this one included.

        Parameters
        ----------
        boxes : mapping of str to BoxPublic
            Of all sites, in the plan's order, from the signed roster.
        scope : str
            Federation and run.
        key_id : bytes
            The run key's: after a rotation all masks are others.
        """

        def pair(other: str) -> bytes:
            names = "|".join((scope, *sorted((site, other)))).encode()
            return derive(box.agree(boxes[other]), _PAIR + names + b"|" + key_id, 32)

        return cls(site, tuple(boxes), tuple(pair(other) for other in boxes))

    def __repr__(self) -> str:
        """Show whose they are, never a key."""
        return f"MaskKeys(site={self.site!r}, sites={len(self.sites)})"

    @property
    def place(self) -> int:
        """Where this site stands in the plan's order."""
        return self.sites.index(self.site)

    def secret(self, place: int, round_id: RoundId) -> bytes:
        """Return the mask secret shared with the site at `place` in a round."""
        return derive(self._pairs[place], _SECRET + _scope(round_id), SECRET_BYTES)

    def lock_key(self, place: int) -> bytes:
        """Return the key that locks shares between this site and the one at `place`."""
        return derive(self._pairs[place], _LOCK, 32)


@dataclass(frozen=True, slots=True, repr=False)
class RoundMasks:
    """One site's secrets of one round; never printed.

    Attributes
    ----------
    pledge : Pledge
        Travels with the update.
    stream : MaskStream
        What is added to it.
    """

    pledge: Pledge
    stream: MaskStream


def make_masks(
    keys: MaskKeys,
    round_id: RoundId,
    threshold: int,
    random: Callable[[int], bytes],
) -> RoundMasks:
    """Return a round's masks of one site, its own seed fresh from `random`."""
    me, n = keys.place, len(keys.sites)
    secrets = [keys.secret(k, round_id) for k in range(n)]
    secrets[me] = random(SECRET_BYTES)
    shares = [split(secret, n, threshold) for secret in secrets]
    bundles = tuple(
        lock(
            keys.lock_key(k),
            b"".join(of_secret[k] for of_secret in shares),
            _between(round_id, me, k),
            random(NONCE_BYTES),
        )
        for k in range(n)
    )
    promises = tuple(promise(round_id, me, k, s) for k, s in enumerate(secrets))
    terms = [(s, _sign(me, k)) for k, s in enumerate(secrets)]
    return RoundMasks(Pledge(promises, bundles), MaskStream(terms))


def open_shares(
    keys: MaskKeys,
    round_id: RoundId,
    participants: Collection[str],
    bundles: Sequence[bytes],
) -> bytes:
    """Return this site's shares of what opens the sum over `participants`.

    17 bytes each, in the order of `owed`. Whether it may is the caller's decision.

    Parameters
    ----------
    bundles : sequence of bytes
        Of the participants, in the plan's order, locked to this site.

    Raises
    ------
    VerificationError
        A bundle that its site did not lock for this round.
    """
    me, opened = keys.place, {}
    owners = [i for i, site in enumerate(keys.sites) if site in participants]
    if len(bundles) != len(owners):
        raise VerificationError(f"{len(bundles)} bundles for {len(owners)} sites")
    for owner, bundle in zip(owners, bundles, strict=True):
        try:
            plain = unlock(keys.lock_key(owner), bundle, _between(round_id, owner, me))
        except VerificationError as bad:
            raise VerificationError(
                f"bundle of mask shares by {keys.sites[owner]} does not open"
            ) from bad
        opened[owner] = cut(plain, SHARE_BYTES)
        if len(opened[owner]) != len(keys.sites):
            raise VerificationError(f"bundle of {keys.sites[owner]} has another size")
    return b"".join(opened[i][k] for i, k in owed(keys.sites, participants))


def removal(
    sites: Sequence[str], participants: Collection[str], secrets: Sequence[bytes]
) -> MaskStream:
    """Return what takes the masks off the sum over `participants`.

    Parameters
    ----------
    secrets : sequence of bytes
        In the order of `owed`.
    """
    pairs = owed(sites, participants)
    terms = [(s, -_sign(i, k)) for (i, k), s in zip(pairs, secrets, strict=True)]
    return MaskStream(terms)


def _sign(me: int, other: int) -> int:
    # The lower place adds what the higher one subtracts; one's own is added.
    return 1 if other >= me else -1


def _scope(round_id: RoundId) -> bytes:
    return f"{round_id.run}|{round_id.number}".encode()


def _between(round_id: RoundId, sender: int, receiver: int) -> bytes:
    return _LOCK + _scope(round_id) + f"|{sender}|{receiver}".encode()
