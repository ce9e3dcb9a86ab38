"""Numbers modulo q in 64-bit words: added, checked, and packed sixteen in fifteen.

Residues are below 2**60: the low 60 bits of fifteen words carry fifteen of them, the
words' spare four bits the sixteenth (ENCRYPTION.md section 7). Knows no ciphertext.
"""

from mmap import mmap

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.uint64]
"""uint64 below q; of a ciphertext: shape (blocks, polynomials, N)."""

MAX_MODULUS = 1 << 60
ByteSource = bytes | bytearray | memoryview | mmap
"""Where packed residues are read from, without a copy."""
_LOW = np.uint64(MAX_MODULUS - 1)
_SPARE = np.uint64(60)
_NIBBLES = np.arange(15, dtype=np.uint64) * np.uint64(4)


def packed_bytes(count: int) -> int:
    """Return the bytes of `count` residues, a multiple of sixteen: 7.5 each."""
    return count * 15 // 2


def pack(residues: Residues) -> bytes:
    """Return residues as bytes; their number is a multiple of sixteen."""
    groups = residues.reshape(-1, 16)
    words = (groups[:, 15:] >> _NIBBLES) << _SPARE
    words |= groups[:, :15]
    return words.astype("<u8", copy=False).tobytes()


def unpack(data: ByteSource, start: int, count: int) -> Residues:
    """Return `count` residues, a multiple of sixteen, from byte `start` on."""
    return _unpacked(_groups(data, start, count)).reshape(-1)


def are_below(modulus: int, data: ByteSource, start: int, count: int) -> bool:
    """Return whether `count` packed residues are all below `modulus`.

    Without unpacking them: fifteen of sixteen compare as they lie, the spare bits
    shifted out, and of the sixteenth only those whose top four bits are as high as the
    modulus' are put together.
    """
    words = _groups(data, start, count)
    if (words << np.uint64(4)).max(initial=0) >= np.uint64(modulus << 4):
        return False
    high = (words[:, 14] >> _SPARE) >= np.uint64(modulus >> 56)
    return bool(_unpacked(words[high])[:, 15].max(initial=0) < np.uint64(modulus))


def add_modulo(total: Residues, summand: Residues, modulus: int) -> None:
    """Add in place; both are below `modulus`, so uint64 never wraps."""
    np.add(total, summand, out=total)
    # Below q the subtraction wraps to something huge, so the smaller one is right.
    np.minimum(total, total - np.uint64(modulus), out=total)


def _groups(data: ByteSource, start: int, count: int) -> Residues:
    words = np.frombuffer(data, dtype="<u8", count=count * 15 // 16, offset=start)
    return words.reshape(-1, 15)


def _unpacked(words: Residues) -> Residues:
    out = np.empty((len(words), 16), dtype=np.uint64)
    np.bitwise_and(words, _LOW, out=out[:, :15])
    # The spare bits are the upper half of each word's last byte: bytes are an eighth of
    # what the same shifts in words would move through the processor's cache.
    spare = words.astype("<u8", copy=False).view(np.uint8)[:, 7::8] >> 4
    last = np.zeros((len(words), 8), dtype=np.uint8)
    last[:] = spare[:, 0::2]
    last[:, :7] |= spare[:, 1::2] << 4
    out[:, 15] = last.view("<u8")[:, 0]
    return out
