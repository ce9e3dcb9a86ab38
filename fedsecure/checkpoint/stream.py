"""Sealing and opening in one pass: no copy of the whole, named while it goes by.

As `seal`, byte for byte, for streams that do not lie in memory as one object or that
would lie there twice.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from blake3 import blake3

from fedsecure.checkpoint import seal
from fedsecure.disk import Readable
from fedsecure.errors import VerificationError
from fedsecure.keks import Closes
from fedsecure.outgoing import Bytes

RING = 4
"""Pieces of a `Sealing` that are good at one time."""
_MAX_HEAD = 1 << 20


class Sealing:
    """A stream on its way into an object: sealed and named as it passes.

    Parameters
    ----------
    size : int
        Bytes of the plain stream.
    recipients, context, random
        See `seal.seal`.
    """

    def __init__(
        self,
        size: int,
        recipients: Mapping[str, Closes],
        context: bytes,
        random: bytes,
    ) -> None:
        key, prefix = seal.cut_random(random)
        lengths = tuple(n + seal.TAG_BYTES for n in _plain_sizes(size))
        self._size = size
        self._head = seal.wrapped_head(key, prefix, size, lengths, recipients, context)
        self._cipher = seal.Chunks(key, prefix, size, len(lengths), context)
        self._hash = blake3(self._head.named())

    def __len__(self) -> int:
        """Return the bytes of the object."""
        return len(self._head.to_bytes()) + sum(self._head.lengths)

    @property
    def name(self) -> str:
        """The object's name, once all of it was taken; see `seal.object_name`."""
        return f"obj/{self._hash.hexdigest()}"

    def pieces(self, plain: Iterable[Bytes]) -> Iterator[Bytes]:
        """Yield the object; a piece is good until `RING` - 1 more were taken.

        Raises
        ------
        VerificationError
            The plain stream is not of the size announced.
        """
        yield self._head.to_bytes()
        largest = max(self._head.lengths)
        ring = [memoryview(bytearray(largest)) for _ in range(RING)]
        taken = 0
        for index, chunk in enumerate(_chunks(plain, self._size)):
            taken += len(chunk)
            if taken > self._size:
                break
            sealed = ring[index % RING][: len(chunk) + seal.TAG_BYTES]
            self._cipher.seal(index, chunk, sealed)
            self._hash.update(sealed)
            yield sealed
        if taken != self._size:
            raise VerificationError(f"{taken} bytes to seal, {self._size} announced")


def unseal(
    file: Readable,
    max_bytes: int,
    secret: Callable[[seal.Head], bytes],
    context: bytes,
    opened: Callable[[memoryview], object] = lambda _: None,
    *,
    keep: bool = True,
) -> tuple[memoryview, str]:
    """Return the plain stream, and the name of what was read.

    Parameters
    ----------
    max_bytes : int
        Largest object.
    secret : callable
        An object's head -> its data key; see `seal.data_key`.
    opened : callable
        Told of each plain chunk in turn; without `keep`, one is good until this was
        told of the next and returned.
    keep : bool
        Whether the plain stream is returned; else its first chunk is, and the memory
        of three chunks is taken instead of that of the whole.

    Raises
    ------
    VerificationError
        Not well formed, larger, not sealed to us, another context, or any byte
        changed.
    """
    head = _read_head(file)
    largest, stored = max(head.lengths), sum(head.lengths)
    if stored > max_bytes or largest > seal.CHUNK_BYTES + seal.TAG_BYTES:
        raise VerificationError(
            f"sealed object of {stored} bytes in chunks of up to {largest}, at most "
            f"{max_bytes} in chunks of {seal.CHUNK_BYTES + seal.TAG_BYTES}"
        )
    sizes = [max(n - seal.TAG_BYTES, 0) for n in head.lengths]
    if sum(sizes) != head.size:
        raise VerificationError(
            f"{sum(sizes)} bytes in chunks, {head.size} were sealed"
        )
    digest = blake3(head.named())
    cipher = seal.Chunks(secret(head), head.prefix, head.size, len(sizes), context)
    plain = memoryview(bytearray(head.size if keep else 3 * largest))
    ring, at = memoryview(bytearray(largest)), 0
    for index, (length, size) in enumerate(zip(head.lengths, sizes, strict=True)):
        _fill(file, ring[:length])
        digest.update(ring[:length])
        if not keep:  # the first stays, the others take turns
            at = (1 + index % 2) * largest if index else 0
        cipher.open(index, ring[:length], plain[at : at + size])
        opened(plain[at : at + size].toreadonly())
        at += size
    if file.readinto(memoryview(bytearray(1))):
        raise VerificationError("sealed object: sizes do not add up")
    whole = plain if keep else plain[: sizes[0]]
    return whole.toreadonly(), f"obj/{digest.hexdigest()}"


def _read_head(file: Readable) -> seal.Head:
    first = bytearray(4)
    _fill(file, memoryview(first))
    length = int.from_bytes(first, "little")
    if length > _MAX_HEAD:
        raise VerificationError(f"sealed object: a head of {length} bytes")
    raw = bytearray(length)
    _fill(file, memoryview(raw))
    return seal.read_head(bytes(raw))


def _fill(file: Readable, into: memoryview) -> None:
    at = 0
    while at < len(into):
        count = file.readinto(into[at:])
        if not count:
            raise VerificationError("sealed object: sizes do not add up")
        at += count


def _plain_sizes(size: int) -> list[int]:
    """Return the sizes of a stream's plain chunks; an empty one has one, empty."""
    full, rest = divmod(size, seal.CHUNK_BYTES)
    return [seal.CHUNK_BYTES] * full + ([rest] if rest or not full else [])


def _chunks(plain: Iterable[Bytes], size: int) -> Iterator[Bytes]:
    """Yield a stream in chunks; what lies whole in memory is not copied."""
    whole = seal.CHUNK_BYTES
    held, filled = memoryview(bytearray(min(whole, max(size, 1)))), 0
    for piece in plain:
        view = memoryview(piece).cast("B")
        while len(view):
            if not filled and len(view) >= whole:
                yield view[:whole]
                view = view[whole:]
                continue
            cut = min(len(held) - filled, len(view))
            held[filled : filled + cut] = view[:cut]
            filled, view = filled + cut, view[cut:]
            if filled == len(held) and (len(view) or filled == whole):
                yield held
                filled = 0
    if filled or not size:
        yield held[:filled]
