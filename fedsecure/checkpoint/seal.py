"""Bytes at rest: AES-256-GCM chunks under a fresh key, wrapped for the aggregators.

Chunks follow STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015): the nonce holds a
random prefix, the chunk's number and whether it is the last, so chunks cannot be
dropped, swapped or cut off. The key is new for every sealing and never used again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hmac import compare_digest

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keks import Closes, Opens
from fedsecure.outgoing import Bytes
from fedsecure.update import JSON

FORMAT = 2
CHUNK_BYTES = 8 << 20
TAG_BYTES = 16
_KEY_BYTES, _PREFIX_BYTES = 32, 7
_TIE = "fedsecure 2026-11 wraps of a sealed object"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is stored of a sealed stream.

    Attributes
    ----------
    wraps : mapping of str to bytes
        The data key, sealed under each key-encryption key.
    prefix : bytes
        First 7 bytes of every nonce.
    size : int
        Bytes of the plain stream.
    chunks : tuple of bytes
        Encrypted chunks, in order.
    tie : bytes
        32 bytes that bind all wraps to the data key: who opens one knows the others
        to be whole.
    """

    wraps: Mapping[str, bytes]
    prefix: bytes
    size: int
    chunks: tuple[Bytes, ...]
    tie: bytes

    def head(self) -> "Head":
        """Return all but the chunks."""
        lengths = tuple(len(chunk) for chunk in self.chunks)
        return Head(self.wraps, self.prefix, self.size, lengths, self.tie)


@dataclass(frozen=True, slots=True)
class Head:
    """What a sealed object begins with; not authentic by itself.

    Attributes
    ----------
    wraps, prefix, size, tie
        See `Sealed`.
    lengths : tuple of int
        Bytes of each chunk as stored.
    """

    wraps: Mapping[str, bytes]
    prefix: bytes
    size: int
    lengths: tuple[int, ...]
    tie: bytes

    def to_bytes(self) -> bytes:
        """Return the stored form: its length, 4 bytes, and canonical JSON."""
        bare = self._bare()
        wraps: dict[str, JSON] = {n: wrap.hex() for n, wrap in self.wraps.items()}
        return _measured(canonical({**bare, "wraps": wraps, "tie": self.tie.hex()}))

    def named(self) -> bytes:
        """Return what an object's name is made of before the chunks."""
        return _measured(canonical(self._bare()))

    def _bare(self) -> dict[str, JSON]:
        return {
            "format": FORMAT,
            "prefix": self.prefix.hex(),
            "size": self.size,
            "chunks": list(self.lengths),
        }


class Chunks:
    """The chunks of one stream under its key, each sealed or opened in place.

    Parameters
    ----------
    key, prefix : bytes
        32 and 7 bytes, never used for another stream.
    size, count : int
        Bytes of the plain stream; its chunks.
    """

    def __init__(
        self, key: bytes, prefix: bytes, size: int, count: int, context: bytes
    ) -> None:
        self._cipher, self._prefix, self._count = AESGCM(key), prefix, count
        self._bound = _bound(context, size)

    def seal(self, index: int, plain: Bytes, into: memoryview) -> None:
        """Fill `into`, `TAG_BYTES` longer, with a sealed chunk."""
        nonce = _nonce(self._prefix, index, self._count)
        self._cipher.encrypt_into(nonce, plain, self._bound, into)

    def open(self, index: int, chunk: Bytes, into: memoryview) -> None:
        """Fill `into`, `TAG_BYTES` shorter, with the plain chunk.

        Raises
        ------
        VerificationError
            It was changed, or stands elsewhere.
        """
        nonce = _nonce(self._prefix, index, self._count)
        try:
            self._cipher.decrypt_into(nonce, chunk, self._bound, into)
        except (InvalidTag, ValueError) as bad:
            raise VerificationError("a sealed chunk was changed") from bad


def seal(
    data: bytes, recipients: Mapping[str, Closes], context: bytes, random: bytes
) -> Sealed:
    """Seal `data` so that each recipient alone can open it.

    Parameters
    ----------
    context : bytes
        What the stream is; opening under another one fails.
    random : bytes
        39 fresh bytes of the system's generator: key and nonce prefix.
    """
    key, prefix = cut_random(random)
    view = memoryview(data)
    pieces = [view[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    pieces = pieces or [view]
    cipher = Chunks(key, prefix, len(data), len(pieces), context)
    chunks = []
    for index, piece in enumerate(pieces):
        chunk = bytearray(len(piece) + TAG_BYTES)
        cipher.seal(index, piece, memoryview(chunk))
        chunks.append(bytes(chunk))
    wrapped = wraps(key, recipients, context)
    return Sealed(wrapped, prefix, len(data), tuple(chunks), _tie(key, wrapped))


def unseal(sealed: Sealed, name: str, key: Opens, context: bytes) -> bytes:
    """Return the plain stream.

    Raises
    ------
    VerificationError
        Not sealed to `name`, another context, or any byte changed.
    """
    secret = data_key(sealed.head(), name, key, context)
    if not sealed.chunks or len(sealed.prefix) != _PREFIX_BYTES:
        # Without a chunk nothing would be authenticated.
        raise VerificationError("a sealed stream has a prefix of 7 bytes and a chunk")
    cipher = Chunks(secret, sealed.prefix, sealed.size, len(sealed.chunks), context)
    sizes = [max(len(chunk) - TAG_BYTES, 0) for chunk in sealed.chunks]
    plain = bytearray(sum(sizes))  # once: joining the chunks would copy them all
    view, start = memoryview(plain), 0
    for index, (chunk, size) in enumerate(zip(sealed.chunks, sizes, strict=True)):
        cipher.open(index, chunk, view[start : start + size])
        start += size
    if len(plain) != sealed.size:
        raise VerificationError(f"{len(plain)} bytes opened, {sealed.size} were sealed")
    return bytes(plain)


def rewrap(
    sealed: Sealed,
    name: str,
    key: Opens,
    recipients: Mapping[str, Closes],
    context: bytes,
) -> Sealed:
    """Return the same stream with its key under other key-encryption keys.

    Raises
    ------
    VerificationError
        Not sealed to `name`, or another context; the chunks are not looked at.
    """
    secret = data_key(sealed.head(), name, key, context)
    wrapped = wraps(secret, recipients, context)
    return replace(sealed, wraps=wrapped, tie=_tie(secret, wrapped))


def object_name(stored: Bytes) -> str:
    """Return the name of stored bytes: ``obj/`` and the BLAKE3 of all but the wraps.

    So a key may be wrapped anew under the same name; a changed wrap does not open.
    """
    length = int.from_bytes(stored[:4], "little")
    try:
        head = json.loads(bytes(stored[4 : 4 + length]))
        del head["wraps"], head["tie"]
        bound = canonical(head)
    except (ValueError, KeyError, TypeError, RecursionError, ConfigurationError):
        return f"obj/{blake3(stored).hexdigest()}"  # no sealed object: nobody's name
    digest = blake3(_measured(bound))
    digest.update(memoryview(stored)[4 + length :])
    return f"obj/{digest.hexdigest()}"


def to_bytes(sealed: Sealed) -> bytes:
    """Return a sealed stream as one object: head length, head, chunks."""
    return b"".join((sealed.head().to_bytes(), *sealed.chunks))


def from_bytes(data: Bytes) -> Sealed:
    """Read one object; nothing in it is believed before `unseal`.

    Raises
    ------
    VerificationError
        Not well formed.
    """
    length = int.from_bytes(data[:4], "little")
    head, view = read_head(bytes(data[4 : 4 + length])), memoryview(data)
    if 4 + length + sum(head.lengths) != len(data):
        raise VerificationError("sealed object: sizes do not add up")
    chunks, start = [], 4 + length
    for n in head.lengths:
        chunks.append(view[start : start + n])  # not copied
        start += n
    return Sealed(head.wraps, head.prefix, head.size, tuple(chunks), head.tie)


def read_head(data: bytes) -> Head:
    """Read an object's head, without the length in front of it.

    Raises
    ------
    VerificationError
        Not well formed.
    """
    try:
        head = json.loads(data)
        if head["format"] != FORMAT:
            raise VerificationError(
                f"sealed object of format {head['format']!r}, this version reads "
                f"{FORMAT}: use the version that wrote it"
            )
        wrapped = {str(k): bytes.fromhex(v) for k, v in head["wraps"].items()}
        prefix, size = bytes.fromhex(head["prefix"]), head["size"]
        tie = bytes.fromhex(head["tie"])
        lengths = tuple(head["chunks"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as bad:
        raise VerificationError("sealed object is not well formed") from bad
    if any(type(n) is not int or n < 0 for n in (size, *lengths)):
        raise VerificationError("sealed object: a size is not a count")
    if not lengths or size > sum(lengths):
        raise VerificationError("sealed object: sizes do not add up")
    if len(prefix) != _PREFIX_BYTES:
        raise VerificationError(f"sealed object: nonce prefix of {len(prefix)} bytes")
    return Head(wrapped, prefix, size, lengths, tie)


def cut_random(random: bytes) -> tuple[bytes, bytes]:
    """Return a key and a nonce prefix; VerificationError if there are not 39 bytes."""
    if len(random) != _KEY_BYTES + _PREFIX_BYTES:
        raise VerificationError(f"seal needs 39 random bytes, got {len(random)}")
    return random[:_KEY_BYTES], random[_KEY_BYTES:]


def wrapped_head(
    key: bytes,
    prefix: bytes,
    size: int,
    lengths: tuple[int, ...],
    recipients: Mapping[str, Closes],
    context: bytes,
) -> Head:
    """Return the head of a stream whose key each recipient can open."""
    wrapped = wraps(key, recipients, context)
    return Head(wrapped, prefix, size, lengths, _tie(key, wrapped))


def wraps(
    key: bytes, recipients: Mapping[str, Closes], context: bytes
) -> dict[str, bytes]:
    """Return a data key under each key-encryption key."""
    return {name: kek.seal(key, _info(context)) for name, kek in recipients.items()}


def data_key(head: Head, name: str, key: Opens, context: bytes) -> bytes:
    """Return the key of a stream.

    Raises
    ------
    VerificationError
        Not sealed to `name`, another context, or a wrap that was changed.
    """
    wrap = head.wraps.get(name)
    if wrap is None:
        raise VerificationError(f"not sealed to {name}")
    found = key.open(wrap, _info(context))
    if len(found) != _KEY_BYTES:
        raise VerificationError(f"a data key of {len(found)} bytes, must be 32")
    if not compare_digest(_tie(found, head.wraps), head.tie):
        raise VerificationError("a wrapped key was changed, dropped or added")
    return found


def _tie(key: bytes, wraps: Mapping[str, bytes]) -> bytes:
    tie_key = blake3(key, derive_key_context=_TIE).digest()
    named: dict[str, JSON] = {name: wrap.hex() for name, wrap in wraps.items()}
    return bytes(blake3(canonical(named), key=tie_key).digest())


def _measured(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _nonce(prefix: bytes, index: int, count: int) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes([index == count - 1])


def _bound(context: bytes, size: int) -> bytes:
    facts: dict[str, JSON] = {"context": context.hex(), "size": size, "v": FORMAT}
    return canonical(facts)


def _info(context: bytes) -> bytes:
    return b"fedsecure-seal-v1\0" + context
