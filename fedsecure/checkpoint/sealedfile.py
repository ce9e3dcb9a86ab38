"""One sealed, signed file of any length, written and read a chunk at a time.

Chunks follow STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015): the nonce holds a
random prefix, the chunk's number and whether it is the last, so chunks cannot be
dropped, swapped or cut off; the head is authenticated with each. The key is new for
every file, and kept in its head under a box key, a key-encryption key or a passphrase
(scrypt).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import BinaryIO

from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.keks import Kek
from fedsecure.keys import (
    KEY_BYTES,
    LOCK_BYTES,
    NONCE_BYTES,
    SIGNATURE_BYTES,
    BoxKey,
    BoxPublic,
    SigningKey,
    VerifyKey,
    lock,
    stretch,
    unlock,
)
from fedsecure.update import JSON

MAGIC = b"fedsecure-sealed-1\n"
CHUNK_BYTES = 8 << 20
SCRYPT_COST = 1 << 17  # 128 MiB, half a second
_LABEL = b"fedsecure-sealed-file-v1\0"
_MAX_HEAD = 1 << 16
_PREFIX, _SALT = 7, 16
_COSTS = range(1 << 14, (1 << 21) + 1)

Random = Callable[[int], bytes]
"""How many bytes -> that many of the system's generator."""


class Box:
    """Seals to a box key; opens with it."""

    def __init__(self, public: BoxPublic, key: BoxKey | None = None) -> None:
        self._public, self._key = public, key

    def keep(self, key: bytes, random: Random) -> dict[str, JSON]:
        """Return the file's key as its head keeps it."""
        _ = random
        return {"box": self._public.seal(key, _LABEL).hex()}

    def key(self, kept: Mapping[str, JSON]) -> bytes:
        """Return the file's key.

        Raises
        ------
        VerificationError
            Sealed to somebody else, or to a passphrase.
        """
        _refuse_kek(kept)
        if "box" not in kept or self._key is None:
            raise VerificationError(
                "it is sealed with a passphrase: name its file, --passphrase-file"
            )
        return self._key.open(_raw(kept["box"]), _LABEL)


class Passphrase:
    """Seals with a passphrase; opens with it."""

    def __init__(self, passphrase: bytes, cost: int = SCRYPT_COST) -> None:
        self._passphrase, self._cost = passphrase, cost

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def keep(self, key: bytes, random: Random) -> dict[str, JSON]:
        """Return the file's key as its head keeps it."""
        salt = random(_SALT)
        locked = lock(
            stretch(self._passphrase, salt, self._cost),
            key,
            _LABEL,
            random(NONCE_BYTES),
        )
        return {"scrypt": locked.hex(), "salt": salt.hex(), "cost": self._cost}

    def key(self, kept: Mapping[str, JSON]) -> bytes:
        """Return the file's key.

        Raises
        ------
        VerificationError
            Another passphrase, or sealed to a box key.
        """
        _refuse_kek(kept)
        cost = kept.get("cost")
        if "scrypt" not in kept:
            raise VerificationError("it is sealed to a kit's box key: name the kit")
        if type(cost) is not int or cost not in _COSTS or cost & (cost - 1):
            raise VerificationError(f"scrypt cost={cost!r}, must be 2^14 to 2^21")
        stretched = stretch(self._passphrase, _raw(kept.get("salt")), cost)
        try:
            return unlock(stretched, _raw(kept["scrypt"]), _LABEL)
        except VerificationError as bad:
            raise VerificationError("the passphrase does not open it") from bad


class Wrapped:
    """Seals under a key-encryption key, such as a token's; opens with it.

    Parameters
    ----------
    kek : Kek
    box : Box
        Opens what was sealed before there was a token.
    """

    def __init__(self, kek: Kek, box: Box) -> None:
        self._kek, self._box = kek, box

    def keep(self, key: bytes, random: Random) -> dict[str, JSON]:
        """Return the file's key as its head keeps it."""
        _ = random
        return {"kek": self._kek.id, "wrapped": self._kek.seal(key, _LABEL).hex()}

    def key(self, kept: Mapping[str, JSON]) -> bytes:
        """Return the file's key.

        Raises
        ------
        VerificationError
            Under another key.
        """
        if "kek" not in kept:
            return self._box.key(kept)
        if kept["kek"] != self._kek.id:
            raise VerificationError(
                f"it is sealed under key {kept['kek']!s:.80}, not {self._kek.id}: name "
                "an aggregator.json whose kek that is, --kek"
            )
        return self._kek.open(_raw(kept.get("wrapped")), _LABEL)


Lid = Box | Passphrase | Wrapped
"""What seals a file's key and opens it."""


class SealedWriter:
    """A file object that seals what is written to it; `finish` makes it whole.

    Parameters
    ----------
    file : BinaryIO
    facts : mapping
        What anyone may read; signed.
    lid : Lid
    random : callable
    """

    def __init__(
        self,
        file: BinaryIO,
        facts: Mapping[str, JSON],
        lid: Lid,
        random: Random,
    ) -> None:
        self._file, self._signed = file, hashlib.sha256(_LABEL)
        self._key, self._prefix = random(KEY_BYTES), random(_PREFIX)
        head: dict[str, JSON] = {
            "facts": dict(facts),
            "key": lid.keep(self._key, random),
            "prefix": self._prefix.hex(),
        }
        data = canonical(head)
        self._bound = hashlib.sha256(data).digest()
        self._count, self._rest = 0, bytearray()
        self._put(MAGIC + len(data).to_bytes(4, "little") + data)

    def write(self, data: bytes) -> int:
        """Take bytes; whole chunks are sealed and written."""
        self._rest += data
        while len(self._rest) > CHUNK_BYTES:  # one stays back: it may be the last
            self._seal(bytes(self._rest[:CHUNK_BYTES]), last=False)
            del self._rest[:CHUNK_BYTES]
        return len(data)

    def finish(self, signing: SigningKey) -> None:
        """Seal the last chunk and sign the file; the caller makes it durable."""
        self._seal(bytes(self._rest), last=True)
        self._file.write(signing.sign(self._signed.digest()))

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        nonce = _nonce(self._prefix, self._count, last=last)
        sealed = lock(self._key, chunk, self._bound, nonce)
        self._count += 1
        self._put(len(sealed).to_bytes(4, "little") + sealed)

    def _put(self, data: bytes) -> None:
        self._signed.update(data)
        self._file.write(data)


class SealedReader:
    """A file object that gives back what was sealed; `finish` checks the signature.

    Raises
    ------
    VerificationError
        Not such a file, or it does not open; also while reading.
    """

    def __init__(self, file: BinaryIO, lid: Lid) -> None:
        self._file, self._signed = file, hashlib.sha256(_LABEL)
        if self._take(len(MAGIC)) != MAGIC:
            raise VerificationError("it is no sealed file of fedsecure")
        length = int.from_bytes(self._take(4), "little")
        if length > _MAX_HEAD:
            raise VerificationError(f"its head has {length} bytes, at most {_MAX_HEAD}")
        data = self._take(length)
        try:
            head = json.loads(data)
            self.facts: Mapping[str, JSON] = dict(head["facts"])
            kept, self._prefix = dict(head["key"]), _raw(head["prefix"])
        except (ValueError, KeyError, TypeError, RecursionError) as bad:
            raise VerificationError("its head is not well formed") from bad
        self._key = lid.key(kept)
        if len(self._key) != KEY_BYTES or len(self._prefix) != _PREFIX:
            raise VerificationError("its head holds no key")
        self._bound = hashlib.sha256(data).digest()
        self._count, self._rest, self._ended = 0, bytearray(), False

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        while len(self._rest) < size and not self._ended:
            self._rest += self._open()
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    def finish(self, key: VerifyKey) -> None:
        """Read to the end and return only if `key` signed all of it.

        Raises
        ------
        VerificationError
            Cut off, longer than it was, or signed by somebody else.
        """
        while not self._ended:
            self._open()
        digest = self._signed.digest()
        signature = self._file.read(SIGNATURE_BYTES)
        key.verify(signature, digest)
        if self._file.read(1):
            raise VerificationError("bytes were added behind its signature")

    def _open(self) -> bytes:
        length = int.from_bytes(self._take(4), "little")
        if not LOCK_BYTES <= length <= CHUNK_BYTES + LOCK_BYTES:
            raise VerificationError(f"chunk {self._count} has {length} bytes")
        sealed = self._take(length)
        nonce = sealed[:NONCE_BYTES]
        plain = unlock(self._key, sealed, self._bound)
        self._ended = nonce == _nonce(self._prefix, self._count, last=True)
        if not self._ended and nonce != _nonce(self._prefix, self._count, last=False):
            raise VerificationError(f"chunk {self._count} is not in its place")
        self._count += 1
        return plain

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise VerificationError("it is cut off: copy it again")
        self._signed.update(data)
        return data


def _refuse_kek(kept: Mapping[str, JSON]) -> None:
    if "kek" in kept:
        raise VerificationError(
            f"it is sealed under key {kept['kek']!s:.80}: name an aggregator.json "
            "whose kek that is, --kek"
        )


def _nonce(prefix: bytes, index: int, *, last: bool) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes([last])


def _raw(value: JSON) -> bytes:
    try:
        return bytes.fromhex(str(value))
    except ValueError as bad:
        raise VerificationError("its head holds no hexadecimal") from bad
