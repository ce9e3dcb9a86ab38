"""Ciphertexts as residues modulo q, their sum, and their bytes; knows no key.

All schemes add residue by residue modulo q, so the server needs numpy and nothing else
(ENCRYPTION.md sections 8 and 9). Residues are below 2**60: the low 60 bits of fifteen
words carry fifteen of them, the words' spare four bits the sixteenth.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsecure.errors import VerificationError

Residues = NDArray[np.uint64]
"""Shape (blocks, polynomials, N), uint64 below q."""

SEED_BYTES = 64
KEY_ID_BYTES = 16
MAX_MODULUS = 1 << 60
MAX_BLOCKS = 1 << 20
CHUNK_BLOCKS = 64
_MAGIC, _VERSION = b"FSHE", 1
# magic, version, log2 N, polynomials, blocks, summands, seeds a block, q, key id
_HEADER = struct.Struct("<4sHBBIHHQ16s")
_LOW = np.uint64(MAX_MODULUS - 1)
_NIBBLES = np.arange(15, dtype=np.uint64) * np.uint64(4)


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """One update, or a sum of them, under encryption.

    Attributes
    ----------
    key_id : bytes
        16 bytes; names the run key, and says nothing about it.
    modulus : int
        q, below 2**60.
    residues : Residues
        Shape (blocks, polynomials, N), uint64 below q.
    seeds : tuple of bytes
        By summand: its seeds, 64 bytes a block; none if all polynomials travel.
    summands : int
        How many updates are in it.
    """

    key_id: bytes
    modulus: int
    residues: Residues
    seeds: tuple[bytes, ...]
    summands: int


class RunningSum:
    """The sum of updates as they arrive; memory flat in their number, seeds apart.

    Parameters
    ----------
    key_id : bytes
        The run key all summands must be under.
    max_summands : int
        The headroom the fields were sized for.
    """

    def __init__(self, key_id: bytes, *, max_summands: int) -> None:
        self._key_id = key_id
        self._max = max_summands
        self._modulus = 0
        self._sum: Residues | None = None
        self._seeds: list[bytes] = []
        self._seen: set[bytes] = set()
        self._summands = 0

    def check(self, summand: Ciphertext) -> None:
        """Return only if `summand` may be added.

        Raises
        ------
        VerificationError
            Another key, modulus or shape, a residue >= q, a seed seen before, or more
            summands than the fields have room for.
        """
        if summand.key_id != self._key_id:
            raise VerificationError("ciphertext is under another run key")
        if self._summands + summand.summands > self._max:
            raise VerificationError(
                f"{self._summands + summand.summands} summands, room for {self._max}"
            )
        if self._sum is not None:
            theirs = (summand.modulus, summand.residues.shape, bool(summand.seeds))
            ours = (self._modulus, self._sum.shape, bool(self._seeds))
            if theirs != ours:
                raise VerificationError(f"ciphertext is {theirs}, the sum is {ours}")
        if summand.residues.max(initial=0) >= summand.modulus:
            raise VerificationError("ciphertext holds a residue not below q")
        fresh = _split_seeds(summand.seeds)
        if len(set(fresh)) != len(fresh) or not self._seen.isdisjoint(fresh):
            raise VerificationError("ciphertext repeats a seed")

    def add(self, summand: Ciphertext) -> None:
        """Add an update; see `check` for what is refused."""
        self.check(summand)
        if self._sum is None:
            self._sum = summand.residues.copy()
            self._modulus = summand.modulus
        else:
            _add_modulo(self._sum, summand.residues, summand.modulus)
        self._seeds += summand.seeds
        self._seen.update(_split_seeds(summand.seeds))
        self._summands += summand.summands

    def total(self) -> Ciphertext:
        """Return the sum.

        Raises
        ------
        VerificationError
            Nothing was added.
        """
        if self._sum is None:
            raise VerificationError("the sum of no update")
        seeds = tuple(self._seeds)
        return Ciphertext(self._key_id, self._modulus, self._sum, seeds, self._summands)


def to_bytes(value: Ciphertext) -> bytes:
    """Return the wire form: header, packed residues, seeds (docs/wire-format.md)."""
    blocks, polynomials, slots = value.residues.shape
    rows = value.residues.reshape(blocks * polynomials, slots)
    out = io.BytesIO()  # unlike a join, it holds the packed bytes once
    out.write(form(value, blocks))
    for i in range(0, len(rows), CHUNK_BLOCKS):
        out.write(_pack(rows[i : i + CHUNK_BLOCKS]))
    out.writelines(value.seeds)
    return out.getvalue()


def form(sample: Ciphertext, blocks: int) -> bytes:
    """Return the header of a ciphertext like `sample`, but of `blocks` blocks.

    Every update of a run begins with the same one: a site that names another form, and
    comes first, must not have the honest ones refused.
    """
    _, polynomials, slots = sample.residues.shape
    return _HEADER.pack(
        _MAGIC,
        _VERSION,
        slots.bit_length() - 1,
        polynomials,
        blocks,
        sample.summands,
        len(sample.seeds),
        sample.modulus,
        sample.key_id,
    )


def from_bytes(data: bytes, *, key_id: bytes, max_summands: int) -> Ciphertext:
    """Read the wire form; sizes first.

    Parameters
    ----------
    key_id : bytes
        The run key it must be under.
    max_summands : int

    Raises
    ------
    VerificationError
        Wrong size, header, key or number of summands, or a residue >= q.
    """
    if len(data) < _HEADER.size:
        raise VerificationError(f"ciphertext of {len(data)} bytes is too short")
    magic, version, log_n, polynomials, blocks, summands, seeds, modulus, found = (
        _HEADER.unpack_from(data)
    )
    if magic != _MAGIC or version != _VERSION:
        raise VerificationError(f"not a ciphertext of version {_VERSION}")
    _check_shape(log_n, polynomials, blocks, modulus)
    if not 1 <= summands <= max_summands or seeds not in {0, summands}:
        raise VerificationError(f"{summands} summands, 1 to {max_summands} allowed")
    if found != key_id:
        raise VerificationError("ciphertext is under another run key")
    slots, rows = 1 << log_n, blocks * polynomials
    packed = rows * slots * 15 // 2
    expected = _HEADER.size + packed + seeds * blocks * SEED_BYTES
    if len(data) != expected:
        raise VerificationError(f"ciphertext of {len(data)} bytes, must be {expected}")
    residues = _unpack(data, _HEADER.size, rows, slots)
    if residues.max(initial=0) >= modulus:
        raise VerificationError("ciphertext holds a residue not below q")
    start, step = _HEADER.size + packed, blocks * SEED_BYTES
    each = tuple(data[start + i * step : start + (i + 1) * step] for i in range(seeds))
    shaped = residues.reshape(blocks, polynomials, slots)
    return Ciphertext(key_id, modulus, shaped, each, summands)


def _check_shape(log_n: int, polynomials: int, blocks: int, modulus: int) -> None:
    if not 10 <= log_n <= 15 or polynomials not in {1, 2}:
        raise VerificationError(
            f"ciphertext of {polynomials} polynomials, N=2**{log_n}"
        )
    if not 1 <= blocks <= MAX_BLOCKS or not 2 <= modulus < MAX_MODULUS:
        raise VerificationError(f"ciphertext of {blocks} blocks modulo {modulus}")


def _add_modulo(total: Residues, summand: Residues, modulus: int) -> None:
    # Both terms are below 2**60, so uint64 never wraps. Chunks keep temporaries small.
    q = np.uint64(modulus)
    for i in range(0, len(total), CHUNK_BLOCKS):
        part = total[i : i + CHUNK_BLOCKS]
        part += summand[i : i + CHUNK_BLOCKS]
        np.subtract(part, q, out=part, where=part >= q)


def _split_seeds(seeds: tuple[bytes, ...]) -> list[bytes]:
    joined = b"".join(seeds)
    return [joined[i : i + SEED_BYTES] for i in range(0, len(joined), SEED_BYTES)]


def _pack(rows: Residues) -> bytes:
    groups = rows.reshape(-1, 16)
    words = groups[:, :15].copy()
    spare = (groups[:, 15:] >> _NIBBLES) & np.uint64(15)
    words |= spare << np.uint64(60)
    return words.astype("<u8", copy=False).tobytes()


def _unpack(data: bytes, start: int, rows: int, slots: int) -> Residues:
    out = np.empty((rows * slots // 16, 16), dtype=np.uint64)
    words = np.frombuffer(data, dtype="<u8", count=len(out) * 15, offset=start)
    grouped = words.reshape(-1, 15)
    step = CHUNK_BLOCKS * slots // 16
    for i in range(0, len(out), step):
        part, target = grouped[i : i + step], out[i : i + step]
        np.bitwise_and(part, _LOW, out=target[:, :15])
        spare = (part >> np.uint64(60)) << _NIBBLES
        target[:, 15] = np.bitwise_or.reduce(spare, axis=1)
    return out.reshape(rows, slots)
