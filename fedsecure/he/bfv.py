"""Exact BFV, seeded and symmetric: the default scheme.

N = 4096, one 60-bit prime q = 2**60 - 2**14 + 1, t = 2**48, ternary secret: 192-bit
line of the HE-standard table. A sum of n is right for certain while 22 n < q / 2t, that
is for n <= 93 (ENCRYPTION.md sections 2, 3 and 7).

SEAL's bytes are made and read here, because the binding offers neither numbers without
Python lists nor seeded ciphertexts in memory. Their layout is no documented contract:
it is learned at start by encrypting zero, and any difference refuses to start. Only
residues below q and 64-byte seeds come from outside; no foreign header meets SEAL.
"""

import os
import struct
from collections.abc import Mapping

import numpy as np
import tenseal.sealapi as seal
import zstandard
from numpy.typing import NDArray

from fedsecure.ciphertext import SEED_BYTES, Ciphertext
from fedsecure.errors import ConfigurationError, OverflowRisk, VerificationError
from fedsecure.he import Decryptor, Encryptor, Scheme, SecretKey
from fedsecure.update import IntVector

NAME = "bfv"
SLOTS = 4096
MODULUS = 1152921504606830593
PLAIN_BITS = 48
MAX_SUMMANDS = 93

_HEAD = struct.Struct(
    "<HBBBBHQ"
)  # SEALHeader: magic, size, major, minor, mode, 0, size
_MAGIC, _MAJOR, _MINOR, _ZSTD = 0xA15E, 4, 3, 2
_POLYNOMIAL = 8 * SLOTS
_FRONT, _BACK = 97, 17  # constants around the first polynomial of a seeded ciphertext
_BODY = _FRONT + _POLYNOMIAL + _BACK + SEED_BYTES
_PINNED_BACK = bytes.fromhex("5ea110040300000051") + bytes(7) + b"\x01"
_PARMS_BYTES = 32
_PLAIN_FRONT = 72  # parms id, count, scale, SEALHeader, count


class Bfv:
    """Parameters, learned layout, and the two memory files SEAL reads and writes."""

    def __init__(self) -> None:
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
        parameters.set_poly_modulus_degree(SLOTS)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(SLOTS, [60]))
        parameters.set_plain_modulus(seal.Modulus(1 << PLAIN_BITS))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set() or self.context.using_keyswitching():
            raise ConfigurationError("bfv: SEAL refuses the parameters at 128 bits")
        self.file = MemoryFile()
        self.front = self._learn()

    @property
    def plain_bits(self) -> int:
        """48: coefficients add modulo 2**48."""
        return PLAIN_BITS

    def keygen(self, key_id: bytes) -> SecretKey:
        """Make a ternary secret from SEAL's own generator (/dev/urandom)."""
        secret = seal.KeyGenerator(self.context).secret_key()
        return SecretKey(NAME, key_id, self.file.saved(secret))

    def encryptor(self, key: SecretKey) -> Encryptor:
        """Return an encryptor for `key`."""
        return BfvEncryptor(self, key)

    def decryptor(self, key: SecretKey) -> Decryptor:
        """Return a decryptor for `key`."""
        return BfvDecryptor(self, key)

    def secret(self, key: SecretKey) -> object:
        """Return SEAL's object for a key.

        Raises
        ------
        VerificationError
            The key is another scheme's, or its bytes do not load.
        """
        if key.scheme != NAME:
            raise VerificationError(f"run key is for {key.scheme!r}, this is {NAME!r}")
        loaded = seal.SecretKey()
        try:
            loaded.load(self.context, self.file.holding(key.secret))
        except (RuntimeError, ValueError) as bad:
            raise VerificationError("run key does not load") from bad
        return loaded

    def _learn(self) -> bytes:
        """Return the constants before the first polynomial, checked by a round trip."""
        secret = seal.KeyGenerator(self.context).secret_key()
        zero = seal.Encryptor(self.context, secret).encrypt_symmetric(
            seal.Plaintext("0")
        )
        body = _body(self.file.saved(zero))
        back = body[_FRONT + _POLYNOMIAL : _FRONT + _POLYNOMIAL + _BACK]
        if len(body) != _BODY or back != _PINNED_BACK:
            raise ConfigurationError(
                "bfv: this tenseal writes ciphertexts in another layout than 0.3.18; "
                "install tenseal==0.3.18"
            )
        return body[:_FRONT]


class BfvEncryptor:
    """Fresh seeded ciphertexts under one run key."""

    def __init__(self, scheme: Bfv, key: SecretKey) -> None:
        self._scheme = scheme
        self._key_id = key.key_id
        self._seal = seal.Encryptor(scheme.context, scheme.secret(key))
        self._plain = seal.Plaintext(SLOTS)

    @property
    def slots(self) -> int:
        """4096."""
        return SLOTS

    def encrypt(self, blocks: IntVector) -> Ciphertext:
        """Encrypt shape (blocks, 4096), int64 in [0, 2**48); one seed a block."""
        if blocks.ndim != 2 or blocks.shape[1] != SLOTS:
            raise VerificationError(
                f"blocks of shape {blocks.shape}, want (n, {SLOTS})"
            )
        if blocks.size and not 0 <= blocks.min() <= blocks.max() < 1 << PLAIN_BITS:
            raise OverflowRisk(f"a coefficient is not in [0, 2**{PLAIN_BITS})")
        residues = np.empty((len(blocks), 1, SLOTS), dtype=np.uint64)
        seeds = [self._one(block, residues[i, 0]) for i, block in enumerate(blocks)]
        return Ciphertext(self._key_id, MODULUS, residues, (b"".join(seeds),), 1)

    def _one(self, block: IntVector, into: NDArray[np.uint64]) -> bytes:
        file, scheme = self._scheme.file, self._scheme
        self._plain.load(scheme.context, file.holding(_plaintext(block)))
        body = _body(file.saved(self._seal.encrypt_symmetric(self._plain)))
        into[:] = np.frombuffer(body, dtype="<u8", count=SLOTS, offset=_FRONT)
        return body[-SEED_BYTES:]


class BfvDecryptor:
    """Opens sums: seeded summands are rebuilt from this process's own constants."""

    def __init__(self, scheme: Bfv, key: SecretKey) -> None:
        self._scheme = scheme
        self._key_id = key.key_id
        self._seal = seal.Decryptor(scheme.context, scheme.secret(key))
        self._evaluator = seal.Evaluator(scheme.context)

    def decrypt(self, total: Ciphertext) -> IntVector:
        """Return shape (blocks, 4096), int64 in [0, 2**48); exact."""
        self._check(total)
        out = np.zeros((len(total.residues), SLOTS), dtype=np.int64)
        for i, block in enumerate(total.residues):
            start = i * SEED_BYTES
            seeds = [s[start : start + SEED_BYTES] for s in total.seeds]
            self._one(block[0], seeds, out[i])
        return out

    def _check(self, total: Ciphertext) -> None:
        if total.key_id != self._key_id or total.modulus != MODULUS:
            raise VerificationError("ciphertext is under another run key or modulus")
        if total.residues.shape[1:] != (1, SLOTS):
            raise VerificationError(f"ciphertext of shape {total.residues.shape}")
        if not 1 <= total.summands <= MAX_SUMMANDS:
            raise VerificationError(
                f"{total.summands} summands, exact for 1 to {MAX_SUMMANDS}"
            )
        length = len(total.residues) * SEED_BYTES
        if [len(s) for s in total.seeds] != [length] * total.summands:
            raise VerificationError("ciphertext does not carry one seed a summand")
        if total.residues.max(initial=0) >= MODULUS:
            raise VerificationError("ciphertext holds a residue not below q")

    def _one(
        self, residues: NDArray[np.uint64], seeds: list[bytes], into: IntVector
    ) -> None:
        """Rebuild n ciphertexts: the first with the sum, the others with zeros."""
        total = self._load(residues.astype("<u8").tobytes(), seeds[0])
        for seed in seeds[1:]:
            self._evaluator.add_inplace(total, self._load(bytes(_POLYNOMIAL), seed))
        plain = seal.Plaintext()
        self._seal.decrypt(total, plain)
        body = _body(self._scheme.file.saved(plain))
        # SEAL trims at the highest coefficient that is not zero.
        (count,) = struct.unpack_from("<Q", body, _PARMS_BYTES)
        into[:count] = np.frombuffer(
            body, dtype="<u8", count=count, offset=_PLAIN_FRONT
        )

    def _load(self, polynomial: bytes, seed: bytes) -> object:
        size = _HEAD.size + _BODY
        head = _HEAD.pack(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, size)
        body = self._scheme.front + polynomial + _PINNED_BACK + seed
        loaded = seal.Ciphertext(self._scheme.context)
        loaded.load(self._scheme.context, self._scheme.file.holding(head + body))
        return loaded


class MemoryFile:
    """A file in memory for SEAL, which saves to and loads from paths only."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("fedsecure-seal", os.MFD_CLOEXEC)
        self._path = f"/proc/self/fd/{self._descriptor}"

    def __del__(self) -> None:
        os.close(self._descriptor)

    def saved(self, value: object) -> bytes:
        """Return what a SEAL object saves."""
        os.ftruncate(self._descriptor, 0)
        value.save(self._path)  # type: ignore[attr-defined]
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, size, 0)
        os.ftruncate(self._descriptor, 0)
        return data

    def holding(self, data: bytes) -> str:
        """Return a path under which SEAL reads `data`."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        return self._path


def create(settings: Mapping[str, object]) -> Scheme:
    """Return the scheme; its parameters are fixed."""
    _ = settings
    return Bfv()


def _plaintext(block: IntVector) -> bytes:
    array = _HEAD.pack(
        _MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, _HEAD.size + 8 + _POLYNOMIAL
    )
    front = struct.pack("<32sQd", bytes(_PARMS_BYTES), SLOTS, 1.0)
    values = block.astype("<u8").tobytes()
    body = front + array + struct.pack("<Q", SLOTS) + values
    size = _HEAD.size + len(body)
    return _HEAD.pack(_MAGIC, _HEAD.size, _MAJOR, _MINOR, 0, 0, size) + body


def _body(saved: bytes) -> bytes:
    """Return what follows SEAL's header, decompressed; bytes of this process only."""
    magic, _, major, minor, mode, _, _ = _HEAD.unpack_from(saved)
    if (magic, major, minor) != (_MAGIC, _MAJOR, _MINOR) or mode not in {0, _ZSTD}:
        raise ConfigurationError(
            f"bfv: SEAL {major}.{minor} saves in mode {mode}; install tenseal==0.3.18"
        )
    if mode == 0:
        return saved[_HEAD.size :]
    return zstandard.ZstdDecompressor().decompressobj().decompress(saved[_HEAD.size :])
