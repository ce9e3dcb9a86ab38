"""No encryption: integers as they are, for debugging. Warns at each use."""

import logging
from collections.abc import Mapping

import numpy as np

from fedsecure.ciphertext import Ciphertext
from fedsecure.errors import OverflowRisk, VerificationError
from fedsecure.he import Decryptor, Encryptor, Scheme, SecretKey
from fedsecure.update import IntVector

log = logging.getLogger(__name__)

NAME = "insecure_plain"
SLOTS = 4096
MODULUS = 1 << 59
"""A multiple of 2**48, so coefficients add modulo that as residues add modulo this."""
PLAIN_BITS = 48
MAX_SUMMANDS = 2048


class InsecurePlain:
    """Anyone who sees the wire sees the update."""

    @property
    def plain_bits(self) -> int:
        """48, as `bfv`."""
        return PLAIN_BITS

    def keygen(self, key_id: bytes) -> SecretKey:
        """Return a key that protects nothing, but names the run."""
        log.warning("insecure_plain: the run's updates are NOT encrypted")
        return SecretKey(NAME, key_id, bytes(32))

    def encryptor(self, key: SecretKey, *, seeded: bool = True) -> Encryptor:
        """Return an encryptor that does not encrypt; there is no seed to leave out."""
        _ = seeded
        return PlainEncryptor(_id_of(key))

    def decryptor(self, key: SecretKey) -> Decryptor:
        """Return the matching decryptor."""
        return PlainDecryptor(_id_of(key))


class PlainEncryptor:
    """Passes integers on."""

    def __init__(self, key_id: bytes) -> None:
        log.warning("insecure_plain: an update leaves without encryption")
        self._key_id = key_id

    @property
    def slots(self) -> int:
        """4096."""
        return SLOTS

    def encrypt(self, blocks: IntVector) -> Ciphertext:
        """Return the blocks as residues."""
        if blocks.ndim != 2 or blocks.shape[1] != SLOTS:
            raise VerificationError(
                f"blocks of shape {blocks.shape}, want (n, {SLOTS})"
            )
        if blocks.size and not 0 <= blocks.min() <= blocks.max() < 1 << PLAIN_BITS:
            raise OverflowRisk(f"a coefficient is not in [0, 2**{PLAIN_BITS})")
        residues = blocks.astype(np.uint64)[:, None, :]
        return Ciphertext(self._key_id, MODULUS, residues, (), 1)


class PlainDecryptor:
    """Reads integers back."""

    def __init__(self, key_id: bytes) -> None:
        log.warning("insecure_plain: a sum arrives that anyone could read")
        self._key_id = key_id

    def decrypt(self, total: Ciphertext) -> IntVector:
        """Return the coefficients modulo 2**48."""
        if total.key_id != self._key_id or total.modulus != MODULUS or total.seeds:
            raise VerificationError(
                "not a sum of insecure_plain under this run's key id"
            )
        if total.residues.ndim != 3 or total.residues.shape[1:] != (1, SLOTS):
            raise VerificationError(f"sum of shape {total.residues.shape}")
        if not 1 <= total.summands <= MAX_SUMMANDS:
            raise VerificationError(
                f"{total.summands} summands, exact for 1 to {MAX_SUMMANDS}"
            )
        if total.residues.max(initial=0) >= MODULUS:
            raise VerificationError("ciphertext holds a residue not below q")
        coefficients = total.residues[:, 0].astype(np.int64)
        return np.asarray(coefficients & ((1 << PLAIN_BITS) - 1))


def create(settings: Mapping[str, object]) -> Scheme:
    """Return the scheme; it has no settings."""
    _ = settings
    return InsecurePlain()


def _id_of(key: SecretKey) -> bytes:
    if key.scheme != NAME:
        raise VerificationError(f"run key is for {key.scheme!r}, this is {NAME!r}")
    return key.key_id
