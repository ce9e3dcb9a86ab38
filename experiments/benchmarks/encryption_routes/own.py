"""Our routes, at the level a site and an aggregator call them."""

# ruff: noqa: ARG002 - signatures are `phases.Route`'s

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsecure import ciphertext, custody, registry
from fedsecure.encoding import Profile, check_tags, pack, profile, tags, unpack
from fedsecure.quantiser import FixedPoint
from fedsecure.update import RoundId

Array = NDArray[Any]
Pieces = Iterable[bytes]
MAX_SITES = 16
ROUND = RoundId("bench", 1)


class Own:
    """Quantise, pack, tag, encrypt and frame; sum; open, check the tags, dequantise."""

    dtype = np.float64
    one_for_all = False

    def __init__(self, sites: int, scheme: str, name: str, params: int) -> None:
        self._names = [f"site-{i}" for i in range(sites)]
        self._profile: Profile = profile(name)
        self._params = params
        bits = self._profile.value_bits(MAX_SITES)
        self._fixed = FixedPoint(1.0, bits, MAX_SITES)
        self._scheme = registry.load("he", scheme).create({})
        self._key = self._scheme.keygen(bytes(range(16)))
        self._tag_key = custody.tag_key(self._key)

    def encrypt(self, update: Array, site: int) -> Iterator[bytes]:
        values = self._fixed.quantize(update).values
        encryptor = self._scheme.encryptor(self._key)
        blocks = pack(values, self._profile, encryptor.slots)
        blocks[:, -1] = tags(self._tag_key, ROUND, self._names[site], len(blocks))
        yield ciphertext.to_bytes(encryptor.encrypt(blocks))

    def encoded(self, update: Array, site: int) -> Array:
        return self._fixed.quantize(update).values

    def aggregate(self, uploads: Iterable[Pieces]) -> Iterator[bytes]:
        total = ciphertext.RunningSum(self._key.key_id, max_summands=MAX_SITES)
        for pieces in uploads:
            data = b"".join(pieces)
            key_id = self._key.key_id
            total.add(ciphertext.from_bytes(data, key_id=key_id, max_summands=1))
        yield ciphertext.to_bytes(total.total())

    def decrypt(self, pieces: Pieces) -> Array:
        data, key_id = b"".join(pieces), self._key.key_id
        total = ciphertext.from_bytes(data, key_id=key_id, max_summands=MAX_SITES)
        blocks = self._scheme.decryptor(self._key).decrypt(total)
        check_tags(blocks[:, -1], self._tag_key, ROUND, self._names)
        integers = unpack(blocks, self._profile, self._params)
        return self._fixed.dequantize(integers) / len(self._names)

    def error(self, opened: Array, encoded: Array) -> float:
        steps = opened * (len(self._names) * self._fixed.scale)
        return float(np.abs(np.rint(steps) - encoded).max())

    def downlink(self, total: int, params: int) -> int:
        return total
