"""SEAL's own bytes: a file in memory to move them, and the layout of three objects.

The binding offers neither numbers without Python lists nor seeded ciphertexts in
memory, so both are made and read here. The layout is no documented contract: it is
learned at start from a ciphertext of zero, and any difference refuses to start
(ENCRYPTION.md section 7). Knows no key, calls nothing of SEAL.
"""

import os
import struct
import threading
import weakref
from typing import Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from fedsecure.ciphertext import SEED_BYTES
from fedsecure.errors import ConfigurationError
from fedsecure.update import IntVector

SLOTS = 4096
POLYNOMIAL_BYTES = 8 * SLOTS

# SEALHeader: magic, header size, major, minor, compression, 0, total size
_HEAD = struct.Struct("<HBBBBHQ")
_MAGIC, _MAJOR, _MINOR, _ZSTD = 0xA15E, 4, 3, 2
_FRONT, _BACK = 97, 17  # constants around the first polynomial of a seeded ciphertext
_BODY = _FRONT + POLYNOMIAL_BYTES + _BACK + SEED_BYTES
_PINNED_BACK = bytes.fromhex("5ea110040300000051") + bytes(7) + b"\x01"
_PARMS_BYTES = 32
# behind the parms id and the NTT flag: two polynomials of 4096 residues, one prime
_PINNED_SHAPE = struct.pack("<QQQ", 2, SLOTS, 1)
_SHAPE = slice(33, 57)
_ARRAY = 73  # where the array of residues begins with its own header
_PLAIN_FRONT = 72  # parms id, count, scale, SEALHeader, count


def _array_head(count: int) -> bytes:
    """Return what stands before an array of numbers, wherever SEAL writes one."""
    size = _HEAD.size + 8 + 8 * count
    head = _HEAD.pack(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, size)
    return head + struct.pack("<Q", count)


class Savable(Protocol):
    """An object of SEAL that saves itself to a path."""

    def save(self, path: str) -> object:
        """Write the object to a file."""
        ...


class MemoryFile:
    """Files in memory for SEAL, which saves to and loads from paths only.

    One is written here and read by SEAL, the other the reverse, so that a frame of the
    same size as the last one frees and takes no page. A forked child makes files of its
    own: with its parent's, one process would read what another wrote.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._ours = self._seals = -1

    def saved(self, value: Savable) -> bytes:
        """Return what a SEAL object saves."""
        self._open()
        value.save(f"/proc/self/fd/{self._seals}")
        size = os.fstat(self._seals).st_size
        data = os.pread(self._seals, size, 0)
        os.ftruncate(self._seals, 0)
        return data

    def holding(self, data: bytes | bytearray) -> str:
        """Return a path under which SEAL reads `data`, until the next call."""
        self._open()
        os.pwrite(self._ours, data, 0)
        os.ftruncate(self._ours, len(data))
        return f"/proc/self/fd/{self._ours}"

    def _open(self) -> None:
        if self._owner == os.getpid():
            return
        self._ours = os.memfd_create("fedsecure-to-seal", os.MFD_CLOEXEC)
        self._seals = os.memfd_create("fedsecure-from-seal", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._ours)
        weakref.finalize(self, os.close, self._seals)
        self._owner = os.getpid()


class Frame:
    """Bytes for SEAL to load, made once: only its numbers and its seed change.

    Parameters
    ----------
    front, back : bytes
        What stands before the numbers, and between them and the seed.
    count : int
        How many numbers of 64 bits.
    seed : int
        Bytes of the seed; 0: none.

    Attributes
    ----------
    numbers : array
        The numbers within it, shape (count,).
    """

    def __init__(
        self, front: bytes, count: int, back: bytes = b"", seed: int = 0
    ) -> None:
        size = _HEAD.size + len(front) + 8 * count + len(back) + seed
        head = _HEAD.pack(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, size)
        self._data = bytearray(head + front + bytes(8 * count) + back + bytes(seed))
        self._seed = slice(size - seed, size)
        self.numbers: NDArray[np.uint64] = np.frombuffer(
            self._data, dtype="<u8", count=count, offset=len(head) + len(front)
        )

    def filled(
        self, numbers: NDArray[np.generic] | int, seed: bytes = b""
    ) -> bytearray:
        """Return the frame's own bytes with these numbers and this seed."""
        self.numbers[:] = numbers
        self._data[self._seed] = seed
        return self._data


class SeededForm:
    """The layout of a seeded ciphertext of 4096 coefficients and one prime.

    Parameters
    ----------
    zero : bytes
        A seeded ciphertext as SEAL saved it, of the parameters in use.

    Raises
    ------
    ConfigurationError
        It has another layout than the one pinned here.
    """

    def __init__(self, zero: bytes) -> None:
        body = _body(zero)
        start = _FRONT + POLYNOMIAL_BYTES
        found = (body[_SHAPE], body[_ARRAY:_FRONT], body[start : start + _BACK])
        pinned = (_PINNED_SHAPE, _array_head(SLOTS), _PINNED_BACK)
        _same_layout(found == pinned and len(body) == _BODY)
        self._front = body[:_FRONT]

    def read(self, saved: bytes, into: NDArray[np.uint64]) -> bytes:
        """Put the first polynomial of a seeded ciphertext `into`; return its seed.

        Parameters
        ----------
        into : array
            Shape (4096,).
        """
        body = _body(saved)
        into[:] = np.frombuffer(body, dtype="<u8", count=SLOTS, offset=_FRONT)
        return body[-SEED_BYTES:]

    def frame(self) -> Frame:
        """Return a ciphertext for SEAL to load, framed by this process's constants."""
        return Frame(self._front, SLOTS, _PINNED_BACK, SEED_BYTES)


class PairForm:
    """The layout of a ciphertext whose two polynomials are both written out.

    Parameters
    ----------
    zero : bytes
        Such a ciphertext as SEAL saved it, of the parameters in use.

    Raises
    ------
    ConfigurationError
        It has another layout than the one pinned here.
    """

    def __init__(self, zero: bytes) -> None:
        body = _body(zero)
        found = (body[_SHAPE], body[_ARRAY:_FRONT])
        pinned = (_PINNED_SHAPE, _array_head(2 * SLOTS))
        _same_layout(found == pinned and len(body) == _FRONT + 2 * POLYNOMIAL_BYTES)
        self._front = body[:_FRONT]

    def read(self, saved: bytes, into: NDArray[np.uint64]) -> None:
        """Put both polynomials of a ciphertext `into`, shape (2, 4096)."""
        body = _body(saved)
        numbers = np.frombuffer(body, dtype="<u8", count=2 * SLOTS, offset=_FRONT)
        into[:] = numbers.reshape(2, SLOTS)

    def frame(self) -> Frame:
        """Return a ciphertext for SEAL to load, framed by this process's constants."""
        return Frame(self._front, 2 * SLOTS)


def plaintext_frame() -> Frame:
    """Return a plaintext of 4096 coefficients for SEAL to load."""
    front = struct.pack("<32sQd", bytes(_PARMS_BYTES), SLOTS, 1.0)
    return Frame(front + _array_head(SLOTS), SLOTS)


def read_plaintext(saved: bytes, into: IntVector) -> None:
    """Put a plaintext's coefficients `into`, zeros at first: SEAL trims high zeros."""
    body = _body(saved)
    (count,) = struct.unpack_from("<Q", body, _PARMS_BYTES)
    into[:count] = np.frombuffer(body, dtype="<u8", count=count, offset=_PLAIN_FRONT)


class _Inflater(threading.local):
    """One decompressor a thread: making one takes half as long as using it."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_inflater = _Inflater()


def _same_layout(same: bool) -> None:
    if not same:
        raise ConfigurationError(
            "this tenseal writes ciphertexts in another layout than 0.3.18; "
            "install tenseal==0.3.18"
        )


def _body(saved: bytes) -> bytes:
    """Return what follows SEAL's header, decompressed; bytes of this process only."""
    magic, _, major, minor, mode, _, _ = _HEAD.unpack_from(saved)
    if (magic, major, minor) != (_MAGIC, _MAJOR, _MINOR) or mode not in {0, _ZSTD}:
        raise ConfigurationError(
            f"SEAL {major}.{minor} saves in mode {mode}; install tenseal==0.3.18"
        )
    if mode == 0:
        return saved[_HEAD.size :]
    inflated = _inflater.zstd.decompressobj()
    return inflated.decompress(memoryview(saved)[_HEAD.size :])
