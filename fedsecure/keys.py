"""Keys: Ed25519 to sign, X25519 with HPKE to wrap, HKDF to derive, AES to mask.

Primitives are those of the `cryptography` package; nothing here is our own arithmetic.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedsecure.errors import ConfigurationError, VerificationError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
NONCE_BYTES = 12
LOCK_BYTES = NONCE_BYTES + 16
"""What `lock` adds: nonce and tag."""
_AES_BLOCK = 16
_SUITE = hpke.Suite(
    hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM
)  # RFC 9180, base mode


def _exactly(raw: bytes, what: str) -> bytes:
    if len(raw) != KEY_BYTES:
        msg = f"{what} has {len(raw)} bytes, must have {KEY_BYTES}"
        raise ConfigurationError(msg)
    return raw


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public Ed25519 key; `raw` is its 32 bytes (RFC 8032)."""

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse any other length."""
        _exactly(self.raw, "public signing key")

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return only if `signature` is this key's over `message`.

        Raises
        ------
        VerificationError
            In every other case.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError) as bad:
            raise VerificationError("signature does not verify") from bad


class SigningKey:
    """A private Ed25519 key; never printed."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = VerifyKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key from the system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, seed: bytes) -> "SigningKey":
        """Read the 32-byte seed of RFC 8032.

        Raises
        ------
        ConfigurationError
            Another length.
        """
        seed = _exactly(seed, "signing key")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def to_bytes(self) -> bytes:
        """Return the 32-byte seed; for a file of mode 0600 only."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(message)

    @property
    def public(self) -> VerifyKey:
        """The matching public key."""
        return self._public


@dataclass(frozen=True, slots=True)
class BoxPublic:
    """A public X25519 key; `raw` is its 32 bytes (RFC 7748)."""

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse any other length."""
        _exactly(self.raw, "public box key")

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Wrap `secret` so that only the private key opens it; 48 bytes longer.

        `info` binds the purpose: opening with another one fails. HPKE base mode does
        not say who sealed it, so the sender signs what it sends (RFC 9180 section 5.1).
        """
        key = X25519PublicKey.from_public_bytes(self.raw)
        return _SUITE.encrypt(secret, key, info)


class BoxKey:
    """A private X25519 key; never printed."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self._public = BoxPublic(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "BoxKey":
        """Make a new key from the system's generator."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> "BoxKey":
        """Read the 32 private bytes.

        Raises
        ------
        ConfigurationError
            Another length.
        """
        return cls(X25519PrivateKey.from_private_bytes(_exactly(raw, "box key")))

    def to_bytes(self) -> bytes:
        """Return the 32 private bytes; for a file of mode 0600 only."""
        return self._key.private_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to this key under `info`.

        Raises
        ------
        VerificationError
            Another key, another `info`, or changed bytes.
        """
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError) as bad:
            raise VerificationError(
                "sealed secret does not open with this key"
            ) from bad

    def agree(self, other: BoxPublic) -> bytes:
        """Return the 32 bytes that only this key and `other`'s owner can compute.

        Raw X25519 (RFC 7748 section 6.1): to be used through `derive` only.

        Raises
        ------
        VerificationError
            A public key of small order, which would agree with everybody.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(other.raw))
        except ValueError as bad:
            raise VerificationError("public box key is of small order") from bad

    @property
    def public(self) -> BoxPublic:
        """The matching public key."""
        return self._public


def derive(secret: bytes, info: bytes, length: int) -> bytes:
    """Return `length` bytes derived from `secret` for the purpose `info` (RFC 5869)."""
    hkdf = HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info)
    return hkdf.derive(secret)


def stretch(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    """Return 32 bytes for a person's passphrase; scrypt (RFC 7914), r=8, p=1.

    Parameters
    ----------
    salt : bytes
        16 fresh random bytes; they are no secret.
    cost : int
        A power of two: N of the RFC. Memory is 1 KiB times as much.
    """
    return Scrypt(salt=salt, length=KEY_BYTES, n=cost, r=8, p=1).derive(passphrase)


def lock(key: bytes, secret: bytes, info: bytes, nonce: bytes) -> bytes:
    """Return `secret` under AES-256-GCM, 28 bytes longer; `info` is authenticated.

    Parameters
    ----------
    key : bytes
        32 bytes that both ends derived.
    nonce : bytes
        12 fresh random bytes; they travel in front.
    """
    return nonce + AESGCM(key).encrypt(nonce, secret, info)


def unlock(key: bytes, locked: bytes, info: bytes) -> bytes:
    """Return what `lock` locked under the same key and `info`.

    Raises
    ------
    VerificationError
        Another key, another `info`, or changed bytes.
    """
    nonce, sealed = locked[:NONCE_BYTES], locked[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, sealed, info)
    except (InvalidTag, ValueError) as bad:
        raise VerificationError("locked secret does not open with this key") from bad


def key_stream(key: bytes, start: int, into: bytearray, zeros: bytes) -> None:
    """Write the AES-256-CTR stream of `key` from byte `start` over `into`.

    Parameters
    ----------
    key : bytes
        32 bytes, used for one stream only: the counter begins at zero.
    start : int
        A multiple of 16, the cipher's block.
    zeros : bytes
        As many zero bytes as `into` has beyond its last 15, which are scratch space.
    """
    counter = (start // _AES_BLOCK).to_bytes(_AES_BLOCK, "big")
    cipher = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
    cipher.update_into(zeros, into)
