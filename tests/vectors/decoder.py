"""A second decoder of ciphertexts: opens them without SEAL and without fedsecure.

Written from ENCRYPTION.md section 7, RFC 7693 (BLAKE2) and the BLAKE2X paper
(Aumasson et al., 2016), for tests only: slow, not constant time, needs the secret
polynomial as plain numbers. SEAL 4.3 expands a seed with Blake2xb, 4096 bytes a
counter, and takes 64-bit words modulo q (`randomgen.cpp`, `rlwe.cpp`).
"""

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray

Q = 2**60 - 2**14 + 1
T = 2**48
N = 4096
HEADER = 40
BLOCK = N * 60 // 8
SEED = 64
_PIECE = 4096  # bytes of the stream a counter
_IV = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)
_SIGMA = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
]
_COLUMNS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
_DIAGONALS = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
Words = NDArray[np.uint64]


def open_block(wire: bytes, block: int, secret: NDArray[np.int64]) -> list[int]:
    """Return 4096 coefficients of one block, each below 2**48.

    Parameters
    ----------
    secret : array
        The 4096 coefficients of s, each -1, 0 or 1.
    """
    return [(v * T + Q // 2) // Q % T for v in open_noisy(wire, block, secret)]


def errors(wire: bytes, block: int, secret: NDArray[np.int64]) -> list[float]:
    """Return how far each coefficient is from q/t times what it opens to.

    Rounding is right while all are below q / 2t, which is 2048.
    """
    noisy = open_noisy(wire, block, secret)
    return [((v * T + Q // 2) % Q - Q // 2) / T for v in noisy]


def open_noisy(wire: bytes, block: int, secret: NDArray[np.int64]) -> list[int]:
    """Return c0 + c1 s modulo q: what is left to round."""
    polynomials, blocks, summands = struct.unpack_from("<BIH", wire, 7)
    c0 = read_residues(wire, HEADER + block * polynomials * BLOCK)
    if polynomials == 2:
        c1 = read_residues(wire, HEADER + (block * polynomials + 1) * BLOCK)
    else:
        c1 = [0] * N
        for i in range(summands):
            at = HEADER + blocks * BLOCK + (i * blocks + block) * SEED
            expanded = expand(wire[at : at + SEED])
            c1 = [a + b for a, b in zip(c1, expanded, strict=True)]
    return [(a + b) % Q for a, b in zip(c0, times(c1, secret), strict=True)]


def read_residues(wire: bytes, start: int) -> list[int]:
    """Return 4096 residues: fifteen words carry sixteen, the last one in nibbles."""
    out = []
    for at in range(start, start + BLOCK, 120):
        words = struct.unpack_from("<15Q", wire, at)
        out += [word % 2**60 for word in words]
        out.append(sum((word >> 60) << 4 * i for i, word in enumerate(words)))
    return out


def expand(seed: bytes) -> list[int]:
    """Return the second polynomial that a seed stands for: residues below q."""
    stream = b"".join(blake2xb(seed, counter) for counter in range(8 * N // _PIECE))
    words = struct.unpack(f"<{N}Q", stream)
    if max(words) >= 2**64 - 2**64 % Q - 1:
        raise NotImplementedError("SEAL draws again here, once in 2**46 words")
    return [word % Q for word in words]


def times(c1: list[int], secret: NDArray[np.int64]) -> list[int]:
    """Return c1 s modulo X**4096 + 1; exact, in two halves, so that int64 holds."""
    halves = []
    for half in ([c % 2**32 for c in c1], [c >> 32 for c in c1]):
        array = np.array(half, dtype=np.int64)
        wound = np.concatenate([-array, array])
        total = np.zeros(N, dtype=np.int64)
        for shift in np.flatnonzero(secret):
            total += secret[shift] * wound[N - shift : 2 * N - shift]
        halves.append(total.tolist())
    return [low + (high << 32) for low, high in zip(*halves, strict=True)]


def blake2xb(key: bytes, counter: int) -> bytes:
    """Return 4096 bytes of BLAKE2Xb over a counter of 8 bytes."""
    length = _PIECE << 32  # the output's length is in the node offset's upper half
    root = hashlib.blake2b(
        struct.pack("<Q", counter), key=key, node_offset=length
    ).digest()
    pieces = _PIECE // 64
    state = np.tile(_IV, (pieces, 1))
    # Digest 64, no key, fanout 0, depth 0, leaf 64; node offset; inner length 64.
    state[:, 0] ^= np.uint64(64 | 64 << 32)
    state[:, 1] ^= np.arange(pieces, dtype=np.uint64) | np.uint64(length)
    state[:, 2] ^= np.uint64(64 << 8)
    message = np.zeros((pieces, 16), dtype=np.uint64)
    message[:, :8] = np.frombuffer(root, dtype="<u8")
    return _compress(state, message).astype("<u8").tobytes()


def _compress(state: Words, message: Words) -> Words:
    """Return the last and only compression of 64 bytes; RFC 7693 section 3.2."""
    v = np.concatenate([state, np.tile(_IV, (len(state), 1))], axis=1)
    v[:, 12] ^= np.uint64(64)
    v[:, 14] = ~v[:, 14]
    for turn in range(12):
        order = _SIGMA[turn % 10]
        for i, places in enumerate(_COLUMNS + _DIAGONALS):
            _mix(v, places, message[:, order[2 * i]], message[:, order[2 * i + 1]])
    mixed: Words = state ^ v[:, :8] ^ v[:, 8:]
    return mixed


def _mix(v: Words, places: tuple[int, int, int, int], x: Words, y: Words) -> None:
    a, b, c, d = places
    for add, right_d, right_b in ((x, 32, 24), (y, 16, 63)):
        v[:, a] += v[:, b] + add
        v[:, d] = _turned(v[:, d] ^ v[:, a], right_d)
        v[:, c] += v[:, d]
        v[:, b] = _turned(v[:, b] ^ v[:, c], right_b)


def _turned(words: Words, right: int) -> Words:
    turned: Words = (words >> np.uint64(right)) | (words << np.uint64(64 - right))
    return turned
