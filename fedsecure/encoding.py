"""Integers as fields of coefficients, and the keyed tag.

Packing is linear modulo 2**48: a coefficient of a sum is the packed form of the summed
integers, noise included, so an overflow costs utility and never privacy. A coefficient
below 2**48 holds k fields of f bits (ENCRYPTION.md sections 4 and 5).
"""

import hashlib
import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedsecure.errors import (
    ConfigurationError,
    OverflowRisk,
    TagMismatch,
    VerificationError,
)
from fedsecure.update import IntVector, RoundId

PLAIN_BITS = 48
TAG_BYTES = 6
_MASK = (1 << PLAIN_BITS) - 1
_TAG_LABEL = b"fedsecure-tag-v1\0"
# Work in chunks keeps temporaries small, and in the processor's cache.
_CHUNK_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Profile:
    """How integers share a coefficient.

    Attributes
    ----------
    name : str
    fields : int
        k: integers in a coefficient.
    field_bits : int
        f: bits of each; ``k * f`` is 48.
    """

    name: str
    fields: int
    field_bits: int

    def value_bits(self, max_contributors: int) -> int:
        """Return b = f - ceil(log2 n_max): bits of one site's integer, sign included.

        Raises
        ------
        OverflowRisk
            Fewer than 4 bits are left.
        """
        bits = self.field_bits - math.ceil(math.log2(max_contributors))
        if bits < 4:
            raise OverflowRisk(
                f"profile {self.name}: {bits} bits are left for {max_contributors} "
                "sites, at least 4 are needed; choose a wider profile"
            )
        return bits

    def a_block(self, slots: int) -> int:
        """Return how many integers a block holds; one slot is the tag's."""
        return self.fields * (slots - 1)

    def blocks(self, count: int, slots: int) -> int:
        """Return how many blocks `count` integers fill."""
        return max(1, math.ceil(count / self.a_block(slots)))


_PROFILES = {
    "20": Profile("20", 2, 24),
    "12": Profile("12", 3, 16),
    "8": Profile("8", 4, 12),
    "wide": Profile("wide", 1, 48),
}


def profile(name: str) -> Profile:
    """Return a profile by its name.

    Raises
    ------
    ConfigurationError
        No such profile.
    """
    found = _PROFILES.get(name)
    if found is None:
        known = ", ".join(_PROFILES)
        raise ConfigurationError(f"encryption.profile={name!r}, must be one of {known}")
    return found


def pack(values: IntVector, chosen: Profile, slots: int) -> IntVector:
    """Return coefficients, shape (blocks, slots), int64 in [0, 2**48).

    The last slot of each block is zero: it is the tag's. Linear modulo 2**48, fields
    that overflow included.
    """
    per_block = chosen.a_block(slots)
    out = np.zeros((chosen.blocks(len(values), slots), slots), dtype=np.int64)
    for start in range(0, len(out), _CHUNK_BLOCKS):
        part = out[start : start + _CHUNK_BLOCKS, :-1]
        first = start * per_block
        inside = values[first : first + len(part) * per_block]
        fields = np.zeros(len(part) * per_block, dtype=np.int64)
        fields[: len(inside)] = inside
        shaped = fields.reshape(len(part), chosen.fields, slots - 1)
        for j in range(chosen.fields):
            part += shaped[:, j] << (j * chosen.field_bits)
        part &= _MASK
    return out


def unpack(blocks: IntVector, chosen: Profile, count: int) -> IntVector:
    """Return `count` integers of a sum: balanced digits, from the low field up.

    Raises
    ------
    VerificationError
        The blocks hold fewer.
    """
    slots = blocks.shape[1]
    if len(blocks) != chosen.blocks(count, slots):
        raise VerificationError(f"{len(blocks)} blocks do not hold {count} integers")
    half, mask = 1 << (chosen.field_bits - 1), (1 << chosen.field_bits) - 1
    # With half a field added to each, digits carry nothing and are read one by one.
    halves = sum(half << (j * chosen.field_bits) for j in range(chosen.fields))
    out = np.empty((len(blocks), chosen.fields, slots - 1), dtype=np.int64)
    for start in range(0, len(blocks), _CHUNK_BLOCKS):
        lifted = blocks[start : start + _CHUNK_BLOCKS, :-1] + halves
        part = out[start : start + _CHUNK_BLOCKS]
        for j in range(chosen.fields):
            np.right_shift(lifted, j * chosen.field_bits, out=part[:, j])
            part[:, j] &= mask
            part[:, j] -= half
    return out.reshape(-1)[:count]


def tags(
    tag_key: bytes, round_id: RoundId, site: str, blocks: int, first: int = 0
) -> IntVector:
    """Return the keyed tags of a site's blocks from `first` on, int64 in [0, 2**48).

    HMAC-SHA256 over run, round, site and block, first 6 bytes, little endian. The key
    comes from the run key: an aggregator cannot make the tag of a wrong set.
    """
    label = f"{round_id.run}|{round_id.number}|{site}|".encode()
    made = (
        hmac.digest(
            tag_key, _TAG_LABEL + label + i.to_bytes(4, "little"), hashlib.sha256
        )
        for i in range(first, first + blocks)
    )
    values = [int.from_bytes(tag[:TAG_BYTES], "little") for tag in made]
    return np.array(values, dtype=np.int64)


def check_tags(
    found: IntVector,
    tag_key: bytes,
    round_id: RoundId,
    sites: Iterable[str],
    first: int = 0,
) -> None:
    """Return only if an opened sum is of exactly these sites' updates.

    Parameters
    ----------
    found : IntVector
        The tags of all blocks, or of a chunk that begins with block `first`.

    Raises
    ------
    TagMismatch
        A site missing, doubled or added, blocks swapped, or another round; passes
        wrongly with chance 2**-48 a block.
    """
    total = np.zeros(len(found), dtype=np.int64)
    for site in sites:
        total = (total + tags(tag_key, round_id, site, len(found), first)) & _MASK
    wrong = np.flatnonzero(total != found)
    if wrong.size:
        raise TagMismatch(
            f"the sum is not of exactly these sites: {wrong.size} of {len(found)} tags "
            "are wrong"
        )
