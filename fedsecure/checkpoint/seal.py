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
    chunks: tuple[bytes, ...]
    tie: bytes


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
    wraps = _wraps(key, recipients, context)
    return Sealed(wraps, prefix, len(data), chunks, _tie(key, wraps))


def unseal(sealed: Sealed, name: str, key: Opens, context: bytes) -> bytes:
    """Return the plain stream.

    Raises
    ------
    VerificationError
        Not sealed to `name`, another context, or any byte changed.
    """
    data_key = _data_key(sealed, name, key, context)
    if not sealed.chunks or len(sealed.prefix) != _PREFIX_BYTES:
        # Without a chunk nothing would be authenticated.
        raise VerificationError("a sealed stream has a prefix of 7 bytes and a chunk")
    cipher = AESGCM(data_key)
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
    data_key = _data_key(sealed, name, key, context)
    wraps = _wraps(data_key, recipients, context)
    return replace(sealed, wraps=wraps, tie=_tie(data_key, wraps))


def object_name(stored: bytes) -> str:
    """Return the name of stored bytes: ``obj/`` and the BLAKE3 of all but the wraps.

    So a key may be wrapped anew under the same name; a changed wrap does not open.
    """
    length = int.from_bytes(stored[:4], "little")
    try:
        head = json.loads(stored[4 : 4 + length])
        del head["wraps"], head["tie"]
        bound = canonical(head)
    except (ValueError, KeyError, TypeError, RecursionError, ConfigurationError):
        return f"obj/{blake3(stored).hexdigest()}"  # no sealed object: nobody's name
    digest = blake3(len(bound).to_bytes(4, "little") + bound)
    digest.update(memoryview(stored)[4 + length :])
    return f"obj/{digest.hexdigest()}"


def to_bytes(sealed: Sealed) -> bytes:
    """Return a sealed stream as one object: head length, head, chunks."""
    head = canonical(
        {
            "format": FORMAT,
            "wraps": {name: wrap.hex() for name, wrap in sealed.wraps.items()},
            "prefix": sealed.prefix.hex(),
            "size": sealed.size,
            "chunks": [len(chunk) for chunk in sealed.chunks],
            "tie": sealed.tie.hex(),
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
            raise VerificationError(
                f"sealed object of format {head['format']!r}, this version reads "
                f"{FORMAT}: use the version that wrote it"
            )
        wraps = {str(k): bytes.fromhex(v) for k, v in head["wraps"].items()}
        prefix, size = bytes.fromhex(head["prefix"]), head["size"]
        tie = bytes.fromhex(head["tie"])
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
    return Sealed(wraps, prefix, size, tuple(chunks), tie)


def _wraps(
    key: bytes, recipients: Mapping[str, Closes], context: bytes
) -> dict[str, bytes]:
    return {name: kek.seal(key, _info(context)) for name, kek in recipients.items()}


def _data_key(sealed: Sealed, name: str, key: Opens, context: bytes) -> bytes:
    wrap = sealed.wraps.get(name)
    if wrap is None:
        raise VerificationError(f"not sealed to {name}")
    found = key.open(wrap, _info(context))
    if len(found) != _KEY_BYTES:
        raise VerificationError(f"a data key of {len(found)} bytes, must be 32")
    if not compare_digest(_tie(found, sealed.wraps), sealed.tie):
        raise VerificationError("a wrapped key was changed, dropped or added")
    return found


def _tie(key: bytes, wraps: Mapping[str, bytes]) -> bytes:
    tie_key = blake3(key, derive_key_context=_TIE).digest()
    named: dict[str, JSON] = {name: wrap.hex() for name, wrap in wraps.items()}
    return bytes(blake3(canonical(named), key=tie_key).digest())


def _nonce(prefix: bytes, index: int, count: int) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes([index == count - 1])


def _bound(context: bytes, size: int) -> bytes:
    facts: dict[str, JSON] = {"context": context.hex(), "size": size, "v": FORMAT}
    return canonical(facts)


def _info(context: bytes) -> bytes:
    return b"fedsecure-seal-v1\0" + context
