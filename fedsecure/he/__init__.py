"""The fence: the only door to plaintext; sites only.

A plug's ``create(settings)`` returns a `Scheme`.
"""

from dataclasses import dataclass
from typing import Protocol

from fedsecure.ciphertext import Ciphertext
from fedsecure.update import IntVector


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """A run's secret key as the scheme's own bytes; never printed, never logged."""

    scheme: str
    key_id: bytes
    secret: bytes

    def __repr__(self) -> str:
        """Show the id, never the key."""
        return f"SecretKey(scheme={self.scheme!r}, key_id={self.key_id.hex()})"


class Encryptor(Protocol):
    """Turns integers into a fresh ciphertext under the run key."""

    @property
    def slots(self) -> int:
        """Coefficients per block, the tag's included."""
        ...

    def encrypt(self, blocks: IntVector) -> Ciphertext:
        """Encrypt.

        Parameters
        ----------
        blocks : IntVector
            Shape (blocks, slots), int64, each in [0, plain_modulus).
        """
        ...


class Decryptor(Protocol):
    """Opens a sum; exact, or it is a bug."""

    def decrypt(self, total: Ciphertext) -> IntVector:
        """Return shape (blocks, slots), int64, each in [0, plain_modulus).

        Raises
        ------
        VerificationError
            Other key, wrong shape, residue >= q, seeds that do not match.
        """
        ...


class Scheme(Protocol):
    """One way to encrypt; parameters are fixed and public."""

    @property
    def plain_bits(self) -> int:
        """log2 of the plain modulus: coefficients add modulo 2**plain_bits."""
        ...

    def keygen(self, key_id: bytes) -> SecretKey:
        """Make a fresh secret key from the system's generator."""
        ...

    def encryptor(self, key: SecretKey, *, seeded: bool = True) -> Encryptor:
        """Return an encryptor for `key`.

        Parameters
        ----------
        seeded : bool
            Whether ciphertexts carry a seed in place of their second polynomial. A
            scheme without a second polynomial makes the same either way.
        """
        ...

    def decryptor(self, key: SecretKey) -> Decryptor:
        """Return a decryptor for `key`."""
        ...
