"""SEAL's own bytes: a file in memory to move them, and the layout of two objects.

The binding offers neither numbers without Python lists nor seeded ciphertexts in
memory, so both are made and read here. The layout is no documented contract: it is
learned at start from a ciphertext of zero, and any difference refuses to start
(ENCRYPTION.md section 7). Knows no key, calls nothing of SEAL.
"""

import os
import struct
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
# what stands before an array of 4096 residues, in ciphertexts and plaintexts alike
_ARRAY_HEAD = struct.pack(
    _HEAD.format + "Q",
    *(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, _HEAD.size + 8 + POLYNOMIAL_BYTES),
    SLOTS,
)
_PLAIN_FRONT = 72  # parms id, count, scale, SEALHeader, count


class Savable(Protocol):
    """An object of SEAL that saves itself to a path."""

    def save(self, path: str) -> object:
        """Write the object to a file."""
        ...


class MemoryFile:
    """A file in memory for SEAL, which saves to and loads from paths only.

    A forked child makes a file of its own: with its parent's, one process would read
    what another wrote.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._descriptor = -1

    def saved(self, value: Savable) -> bytes:
        """Return what a SEAL object saves."""
        value.save(self._emptied())
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, size, 0)
        os.ftruncate(self._descriptor, 0)
        return data

    def holding(self, data: bytes) -> str:
        """Return a path under which SEAL reads `data`."""
        path = self._emptied()
        os.pwrite(self._descriptor, data, 0)
        return path

    def _emptied(self) -> str:
        if self._owner != os.getpid():
            self._descriptor = os.memfd_create("fedsecure-seal", os.MFD_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            self._owner = os.getpid()
        os.ftruncate(self._descriptor, 0)
        return f"/proc/self/fd/{self._descriptor}"


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
        found = (body[_SHAPE], body[73:_FRONT], body[start : start + _BACK])
        pinned = (_PINNED_SHAPE, _ARRAY_HEAD, _PINNED_BACK)
        if len(body) != _BODY or found != pinned:
            raise ConfigurationError(
                "this tenseal writes ciphertexts in another layout than 0.3.18; "
                "install tenseal==0.3.18"
            )
        size = _HEAD.size + _BODY
        head = _HEAD.pack(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, size)
        self._front = head + body[:_FRONT]

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

    def write(self, polynomial: bytes, seed: bytes) -> bytes:
        """Return a ciphertext for SEAL to load, framed by this process's constants."""
        return b"".join((self._front, polynomial, _PINNED_BACK, seed))


def write_plaintext(block: IntVector) -> bytes:
    """Return 4096 coefficients as a plaintext for SEAL to load."""
    front = struct.pack("<32sQd", bytes(_PARMS_BYTES), SLOTS, 1.0)
    body = front + _ARRAY_HEAD + block.astype("<u8").tobytes()
    size = _HEAD.size + len(body)
    return _HEAD.pack(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, size) + body


def read_plaintext(saved: bytes, into: IntVector) -> None:
    """Put a plaintext's coefficients `into`, zeros at first: SEAL trims high zeros."""
    body = _body(saved)
    (count,) = struct.unpack_from("<Q", body, _PARMS_BYTES)
    into[:count] = np.frombuffer(body, dtype="<u8", count=count, offset=_PLAIN_FRONT)


def _body(saved: bytes) -> bytes:
    """Return what follows SEAL's header, decompressed; bytes of this process only."""
    magic, _, major, minor, mode, _, _ = _HEAD.unpack_from(saved)
    if (magic, major, minor) != (_MAGIC, _MAJOR, _MINOR) or mode not in {0, _ZSTD}:
        raise ConfigurationError(
            f"SEAL {major}.{minor} saves in mode {mode}; install tenseal==0.3.18"
        )
    if mode == 0:
        return saved[_HEAD.size :]
    return zstandard.ZstdDecompressor().decompressobj().decompress(saved[_HEAD.size :])
