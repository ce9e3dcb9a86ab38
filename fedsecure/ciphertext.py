"""Ciphertexts in memory and on the wire, a chunk of blocks at a time; knows no key.

All schemes add residue by residue modulo q, so the server needs numpy and nothing else
(ENCRYPTION.md sections 8 and 9). The wire form is docs/wire-format.md.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fedsecure.errors import VerificationError
from fedsecure.residues import (
    MAX_MODULUS,
    ByteSource,
    Residues,
    are_below,
    pack,
    packed_bytes,
    unpack,
)

SEED_BYTES = 64
KEY_ID_BYTES = 16
MAX_BLOCKS = 1 << 20
CHUNK_BLOCKS = 16
"""Blocks worked on and handed over at once: 0.49 MB packed at N = 4096.

Times are the same from 8 to 64; what is held beside an update is not (ADR 0007)."""
_MAGIC, _VERSION = b"FSHE", 1
# magic, version, log2 N, polynomials, blocks, summands, seeds a block, q, key id
_HEADER = struct.Struct("<4sHBBIHHQ16s")
HEADER_BYTES = _HEADER.size
"""40; of every ciphertext."""


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """One update, or a sum of them, under encryption; or a chunk of its blocks.

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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Blocks, polynomials that travel in full, and N."""
        blocks, polynomials, slots = self.residues.shape
        return blocks, polynomials, slots

    def chunks(self) -> Iterator["Ciphertext"]:
        """Yield the same in chunks of 16 blocks; residues are views, not copies."""
        for i in range(0, len(self.residues), CHUNK_BLOCKS):
            part = slice(i * SEED_BYTES, (i + CHUNK_BLOCKS) * SEED_BYTES)
            seeds = tuple(one[part] for one in self.seeds)
            residues = self.residues[i : i + CHUNK_BLOCKS]
            yield replace(self, residues=residues, seeds=seeds)

    def check_residues(self) -> None:
        """Return only if all residues are below q; VerificationError otherwise."""
        if self.residues.max(initial=0) >= self.modulus:
            raise VerificationError("ciphertext holds a residue not below q")


def check_total(
    total: Ciphertext, *, key_id: bytes, modulus: int, slots: int, max_summands: int
) -> None:
    """Return only if a scheme of these parameters may open `total`.

    Raises
    ------
    VerificationError
        Another key, modulus or N; more summands than are exact; neither both
        polynomials nor one and a seed a block and summand; a residue >= q.
    """
    if total.key_id != key_id or total.modulus != modulus:
        raise VerificationError("ciphertext is under another run key or modulus")
    if total.residues.ndim != 3 or total.residues.shape[2] != slots:
        raise VerificationError(f"ciphertext of shape {total.residues.shape}")
    if not 1 <= total.summands <= max_summands:
        raise VerificationError(
            f"{total.summands} summands, exact for 1 to {max_summands}"
        )
    blocks, polynomials, _ = total.shape
    carried = [len(one) for one in total.seeds]
    seeded = polynomials == 1 and carried == [blocks * SEED_BYTES] * total.summands
    if not seeded and (polynomials != 2 or carried):
        raise VerificationError(
            f"ciphertext of {polynomials} polynomials does not carry one seed a summand"
        )
    total.check_residues()


class Wire:
    """A ciphertext as its bytes: sizes and header checked, nothing unpacked before use.

    Parameters
    ----------
    data : ByteSource
        bytes, memoryview or mmap; kept, not copied.
    key_id : bytes
        The run key it must be under.
    max_summands : int

    Raises
    ------
    VerificationError
        Wrong size, header, key or number of summands. Residues are `check_residues`'s.
    """

    def __init__(self, data: ByteSource, *, key_id: bytes, max_summands: int) -> None:
        self._data = memoryview(data).cast("B")
        size = len(self._data)
        if size < _HEADER.size:
            raise VerificationError(f"ciphertext of {size} bytes is too short")
        magic, version, log_n, polynomials, blocks, summands, seeds, modulus, found = (
            _HEADER.unpack_from(self._data)
        )
        if magic != _MAGIC or version != _VERSION:
            raise VerificationError(f"not a ciphertext of version {_VERSION}")
        _check_shape(log_n, polynomials, blocks, modulus)
        if not 1 <= summands <= max_summands or seeds not in {0, summands}:
            raise VerificationError(f"{summands} summands, 1 to {max_summands} allowed")
        if found != key_id:
            raise VerificationError("ciphertext is under another run key")
        self.key_id, self.modulus, self.summands = key_id, int(modulus), int(summands)
        self.shape = (int(blocks), int(polynomials), 1 << log_n)
        self._carried = int(seeds)
        expected = wire_bytes(self.shape, seeds)
        if size != expected:
            raise VerificationError(f"ciphertext of {size} bytes, must be {expected}")

    @property
    def seeds(self) -> tuple[bytes, ...]:
        """By summand: its seeds, 64 bytes a block."""
        return self._seeds(0, self.shape[0])

    def chunks(self) -> Iterator[Ciphertext]:
        """Yield the ciphertext in chunks of 16 blocks, each unpacked when asked for."""
        blocks, polynomials, slots = self.shape
        for i, start, count in self._places():
            part = min(CHUNK_BLOCKS, blocks - i)
            residues = unpack(self._data, start, count)
            yield Ciphertext(
                self.key_id,
                self.modulus,
                residues.reshape(part, polynomials, slots),
                self._seeds(i, part),
                self.summands,
            )

    def check_residues(self) -> None:
        """Return only if all residues are below q; VerificationError otherwise."""
        for _, start, count in self._places():
            if not are_below(self.modulus, self._data, start, count):
                raise VerificationError("ciphertext holds a residue not below q")

    def _places(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first block, first byte, number of residues) of each chunk."""
        blocks, polynomials, slots = self.shape
        a_block = polynomials * slots
        for i in range(0, blocks, CHUNK_BLOCKS):
            start = _HEADER.size + packed_bytes(i * a_block)
            yield i, start, min(CHUNK_BLOCKS, blocks - i) * a_block

    def _seeds(self, first: int, count: int) -> tuple[bytes, ...]:
        blocks = self.shape[0]
        start = wire_bytes(self.shape, 0) + first * SEED_BYTES
        places = range(start, start + self._carried * blocks * SEED_BYTES, blocks * 64)
        return tuple(bytes(self._data[at : at + count * SEED_BYTES]) for at in places)


def wire_bytes(shape: tuple[int, int, int], seeds: int) -> int:
    """Return the size of the wire form of this shape with so many seeds a block."""
    blocks, polynomials, slots = shape
    packed = packed_bytes(blocks * polynomials * slots)
    return _HEADER.size + packed + seeds * blocks * SEED_BYTES


def announced_bytes(data: ByteSource) -> int:
    """Return the size of the ciphertext that `data` begins with, by its header.

    Raises
    ------
    VerificationError
        Shorter than a header, or a shape out of bounds.
    """
    if len(data) < _HEADER.size:
        raise VerificationError(f"ciphertext of {len(data)} bytes is too short")
    _, _, log_n, polynomials, blocks, _, seeds, modulus, _ = _HEADER.unpack_from(data)
    _check_shape(log_n, polynomials, blocks, modulus)
    return wire_bytes((blocks, polynomials, 1 << log_n), seeds)


def wire_chunks(header: bytes, chunks: Iterable[Ciphertext]) -> Iterator[bytes]:
    """Yield the wire form of a ciphertext that comes in chunks, made one by one.

    The header, the packed residues of each chunk, and at the end the seeds: only those
    are kept meanwhile, 64 bytes a block and summand.
    """
    yield header
    seeds: list[list[bytes]] = []
    for chunk in chunks:
        yield pack(chunk.residues)
        seeds.append(list(chunk.seeds))
    for by_summand in zip(*seeds, strict=True):
        yield b"".join(by_summand)


def to_chunks(value: Ciphertext) -> Iterator[bytes]:
    """Yield the wire form of a ciphertext in chunks; `wire_bytes` is their size."""
    yield form(value, len(value.residues))
    for chunk in value.chunks():
        yield pack(chunk.residues)
    yield from value.seeds


def to_bytes(value: Ciphertext) -> bytes:
    """Return the wire form: header, packed residues, seeds (docs/wire-format.md)."""
    out = io.BytesIO()  # unlike a join, it holds the packed bytes once
    out.writelines(to_chunks(value))
    return out.getvalue()


def form(sample: Ciphertext, blocks: int) -> bytes:
    """Return the header of a ciphertext like `sample`, but of `blocks` blocks.

    Every update of a run begins with the same one: a site that names another form, and
    comes first, must not have the honest ones refused.
    """
    _, polynomials, slots = sample.shape
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


def from_bytes(data: ByteSource, *, key_id: bytes, max_summands: int) -> Ciphertext:
    """Read the wire form whole; what is large is read by `Wire`, in chunks.

    Raises
    ------
    VerificationError
        Wrong size, header, key or number of summands, or a residue >= q.
    """
    wire = Wire(data, key_id=key_id, max_summands=max_summands)
    wire.check_residues()
    start, shape = _HEADER.size, wire.shape
    residues = unpack(data, start, shape[0] * shape[1] * shape[2]).reshape(shape)
    return Ciphertext(key_id, wire.modulus, residues, wire.seeds, wire.summands)


def _check_shape(log_n: int, polynomials: int, blocks: int, modulus: int) -> None:
    if not 10 <= log_n <= 15 or polynomials not in {1, 2}:
        raise VerificationError(
            f"ciphertext of {polynomials} polynomials, N=2**{log_n}"
        )
    if not 1 <= blocks <= MAX_BLOCKS or not 2 <= modulus < MAX_MODULUS:
        raise VerificationError(f"ciphertext of {blocks} blocks modulo {modulus}")
