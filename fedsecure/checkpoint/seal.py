"""Bytes at rest: AES-256-GCM chunks under a fresh key, wrapped to each aggregator.

Chunks follow STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015): the nonce holds a
random prefix, the chunk's number and whether it is the last, so chunks cannot be
dropped, swapped or cut off. The key is new for every sealing and never used again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey, BoxPublic
from fedsecure.update import JSON

FORMAT = 1
CHUNK_BYTES = 8 << 20
TAG_BYTES = 16
_KEY_BYTES, _PREFIX_BYTES = 32, 7


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is stored of a sealed stream.

    Attributes
    ----------
    wraps : mapping of str to bytes
        The data key, sealed to each recipient's box key.
    prefix : bytes
        First 7 bytes of every nonce.
    size : int
        Bytes of the plain stream.
    chunks : tuple of bytes
        Encrypted chunks, in order.
    """

    wraps: Mapping[str, bytes]
    prefix: bytes
    size: int
    chunks: tuple[bytes, ...]


def seal(
    data: bytes, recipients: Mapping[str, BoxPublic], context: bytes, random: bytes
) -> Sealed:
    """Seal `data` so that each recipient alone can open it.

    Parameters
    ----------
    context : bytes
        What the stream is; opening under another one fails.
    random : bytes
        39 fresh bytes of the system's generator: key and nonce prefix.
    """
    if len(random) != _KEY_BYTES + _PREFIX_BYTES:
        raise VerificationError(f"seal needs 39 random bytes, got {len(random)}")
    key, prefix = random[:_KEY_BYTES], random[_KEY_BYTES:]
    cipher, view = AESGCM(key), memoryview(data)
    pieces = [view[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    pieces = pieces or [view]
    chunks = tuple(
        cipher.encrypt(
            _nonce(prefix, i, len(pieces)), piece, _bound(context, len(data))
        )
        for i, piece in enumerate(pieces)
    )
    wraps = {name: box.seal(key, _info(context)) for name, box in recipients.items()}
    return Sealed(wraps, prefix, len(data), chunks)


def unseal(sealed: Sealed, name: str, key: BoxKey, context: bytes) -> bytes:
    """Return the plain stream.

    Raises
    ------
    VerificationError
        Not sealed to `name`, another context, or any byte changed.
    """
    wrap = sealed.wraps.get(name)
    if wrap is None:
        raise VerificationError(f"not sealed to {name}")
    if not sealed.chunks or len(sealed.prefix) != _PREFIX_BYTES:
        # Without a chunk nothing would be authenticated.
        raise VerificationError("a sealed stream has a prefix of 7 bytes and a chunk")
    cipher = AESGCM(key.open(wrap, _info(context)))
    sizes = [max(len(chunk) - TAG_BYTES, 0) for chunk in sealed.chunks]
    plain = bytearray(sum(sizes))  # once: joining the chunks would copy them all
    view, start = memoryview(plain), 0
    try:
        for i, (chunk, size) in enumerate(zip(sealed.chunks, sizes, strict=True)):
            cipher.decrypt_into(
                _nonce(sealed.prefix, i, len(sealed.chunks)),
                chunk,
                _bound(context, sealed.size),
                view[start : start + size],
            )
            start += size
    except (InvalidTag, ValueError) as bad:
        raise VerificationError("a sealed chunk was changed") from bad
    if len(plain) != sealed.size:
        raise VerificationError(f"{len(plain)} bytes opened, {sealed.size} were sealed")
    return bytes(plain)


def object_name(stored: bytes) -> str:
    """Return the name of stored bytes: ``obj/`` and their BLAKE3."""
    return f"obj/{blake3(stored).hexdigest()}"


def to_bytes(sealed: Sealed) -> bytes:
    """Return a sealed stream as one object: head length, head, chunks."""
    head = canonical(
        {
            "format": FORMAT,
            "wraps": {name: wrap.hex() for name, wrap in sealed.wraps.items()},
            "prefix": sealed.prefix.hex(),
            "size": sealed.size,
            "chunks": [len(chunk) for chunk in sealed.chunks],
        }
    )
    return b"".join((len(head).to_bytes(4, "little"), head, *sealed.chunks))


def from_bytes(data: bytes) -> Sealed:
    """Read one object; nothing in it is believed before `unseal`.

    Raises
    ------
    VerificationError
        Not well formed.
    """
    length = int.from_bytes(data[:4], "little")
    try:
        head = json.loads(data[4 : 4 + length])
        if head["format"] != FORMAT:
            raise VerificationError(f"sealed object of format {head['format']!r}")
        wraps = {str(k): bytes.fromhex(v) for k, v in head["wraps"].items()}
        prefix, size = bytes.fromhex(head["prefix"]), head["size"]
        lengths = list(head["chunks"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as bad:
        raise VerificationError("sealed object is not well formed") from bad
    if any(type(n) is not int or n < 0 for n in (size, *lengths)):
        raise VerificationError("sealed object: a size is not a count")
    if not lengths or 4 + length + sum(lengths) != len(data) or size > len(data):
        raise VerificationError("sealed object: sizes do not add up")
    if len(prefix) != _PREFIX_BYTES:
        raise VerificationError(f"sealed object: nonce prefix of {len(prefix)} bytes")
    chunks, start = [], 4 + length
    for n in lengths:
        chunks.append(data[start : start + n])
        start += n
    return Sealed(wraps, prefix, size, tuple(chunks))


def _nonce(prefix: bytes, index: int, count: int) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes([index == count - 1])


def _bound(context: bytes, size: int) -> bytes:
    facts: dict[str, JSON] = {"context": context.hex(), "size": size, "v": FORMAT}
    return canonical(facts)


def _info(context: bytes) -> bytes:
    return b"fedsecure-seal-v1\0" + context
