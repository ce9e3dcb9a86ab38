"""Exact BFV, seeded and symmetric: the default scheme.

N = 4096, one 60-bit prime q = 2**60 - 2**14 + 1, t = 2**48, ternary secret: 192-bit
line of the HE-standard table. A sum of n is right for certain while 22 n < q / 2t, that
is for n <= 93 (ENCRYPTION.md sections 2, 3 and 7).

Only residues below q and 64-byte seeds come from outside; no foreign header meets SEAL.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import tenseal.sealapi as seal

from fedsecure.ciphertext import SEED_BYTES, Ciphertext, check_total
from fedsecure.errors import ConfigurationError, OverflowRisk, VerificationError
from fedsecure.he import Decryptor, Encryptor, Scheme, SecretKey
from fedsecure.residues import Residues, add_modulo
from fedsecure.sealfile import (
    SLOTS,
    MemoryFile,
    PairForm,
    SeededForm,
    plaintext_frame,
    read_plaintext,
)
from fedsecure.update import IntVector

NAME = "bfv"
MODULUS = 1152921504606830593
PLAIN_BITS = 48
MAX_SUMMANDS = 93
# What is added to a sum before SEAL opens it and taken off after: public numbers that
# compress badly. SEAL saves a plaintext through zstd only, which takes twice as long
# over the regular fields of a sum. q/t times them, rounded, adds 1/2 to the noise.
_VEIL = np.frombuffer(hashlib.shake_256(b"fedsecure").digest(8 * SLOTS), "<u8") >> 16
_VEIL_RESIDUES = (_VEIL << 12) - ((_VEIL * ((1 << 14) - 1) + (1 << 47)) >> PLAIN_BITS)


class Bfv:
    """Parameters, learned layout, and the memory file SEAL reads and writes."""

    def __init__(self) -> None:
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
        parameters.set_poly_modulus_degree(SLOTS)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(SLOTS, [60]))
        parameters.set_plain_modulus(seal.Modulus(1 << PLAIN_BITS))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set() or self.context.using_keyswitching():
            raise ConfigurationError("bfv: SEAL refuses the parameters at 128 bits")
        self.file = MemoryFile()
        self.form, self.pair = self._learn()

    @property
    def plain_bits(self) -> int:
        """48: coefficients add modulo 2**48."""
        return PLAIN_BITS

    def keygen(self, key_id: bytes) -> SecretKey:
        """Make a ternary secret from SEAL's own generator (/dev/urandom)."""
        secret = seal.KeyGenerator(self.context).secret_key()
        return SecretKey(NAME, key_id, self.file.saved(secret))

    def encryptor(self, key: SecretKey, *, seeded: bool = True) -> Encryptor:
        """Return an encryptor for `key`."""
        return BfvEncryptor(self, key, seeded=seeded)

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
        finally:
            self.file.holding(b"")
        return loaded

    def _learn(self) -> tuple[SeededForm, PairForm]:
        secret = seal.KeyGenerator(self.context).secret_key()
        encryptor = seal.Encryptor(self.context, secret)
        plain, both = seal.Plaintext("0"), seal.Ciphertext()
        encryptor.encrypt_symmetric(plain, both)
        seeded = self.file.saved(encryptor.encrypt_symmetric(plain))
        return SeededForm(seeded), PairForm(self.file.saved(both))


class BfvEncryptor:
    """Fresh ciphertexts under one run key: seeded, or of two polynomials."""

    def __init__(self, scheme: Bfv, key: SecretKey, *, seeded: bool) -> None:
        self._scheme = scheme
        self._key_id = key.key_id
        self._seal = seal.Encryptor(scheme.context, scheme.secret(key))
        self._plain = seal.Plaintext(SLOTS)
        self._frame = plaintext_frame()
        self._both = None if seeded else seal.Ciphertext()

    @property
    def slots(self) -> int:
        """4096."""
        return SLOTS

    def encrypt(self, blocks: IntVector) -> Ciphertext:
        """Encrypt shape (blocks, 4096), int64 in [0, 2**48)."""
        if blocks.ndim != 2 or blocks.shape[1] != SLOTS:
            raise VerificationError(
                f"blocks of shape {blocks.shape}, want (n, {SLOTS})"
            )
        if blocks.size and not 0 <= blocks.min() <= blocks.max() < 1 << PLAIN_BITS:
            raise OverflowRisk(f"a coefficient is not in [0, 2**{PLAIN_BITS})")
        polynomials = 1 if self._both is None else 2
        residues = np.empty((len(blocks), polynomials, SLOTS), dtype=np.uint64)
        seeds = [self._one(block, residues[i]) for i, block in enumerate(blocks)]
        carried = (b"".join(seeds),) if self._both is None else ()
        return Ciphertext(self._key_id, MODULUS, residues, carried, 1)

    def _one(self, block: IntVector, into: Residues) -> bytes:
        """Put a block's polynomials `into`; return its seed, if it has one."""
        file, scheme = self._scheme.file, self._scheme
        self._plain.load(scheme.context, file.holding(self._frame.filled(block)))
        if self._both is None:
            saved = file.saved(self._seal.encrypt_symmetric(self._plain))
            return scheme.form.read(saved, into[0])
        self._seal.encrypt_symmetric(self._plain, self._both)
        scheme.pair.read(file.saved(self._both), into)
        return b""


class BfvDecryptor:
    """Opens sums; what SEAL loads is framed by this process's own constants."""

    def __init__(self, scheme: Bfv, key: SecretKey) -> None:
        self._scheme = scheme
        self._key_id = key.key_id
        self._seal = seal.Decryptor(scheme.context, scheme.secret(key))
        self._evaluator = seal.Evaluator(scheme.context)
        self._seeded, self._pair = scheme.form.frame(), scheme.pair.frame()
        self._plain = seal.Plaintext()

    def decrypt(self, total: Ciphertext) -> IntVector:
        """Return shape (blocks, 4096), int64 in [0, 2**48); exact."""
        check_total(
            total,
            key_id=self._key_id,
            modulus=MODULUS,
            slots=SLOTS,
            max_summands=MAX_SUMMANDS,
        )
        out = np.zeros((len(total.residues), SLOTS), dtype=np.int64)
        for i, block in enumerate(total.residues.copy()):
            add_modulo(block[0], _VEIL_RESIDUES, MODULUS)
            start = i * SEED_BYTES
            seeds = [s[start : start + SEED_BYTES] for s in total.seeds]
            loaded = self._expanded(block[0], seeds) if seeds else self._both(block)
            self._seal.decrypt(loaded, self._plain)
            read_plaintext(self._scheme.file.saved(self._plain), out[i])
        out -= _VEIL.astype(np.int64)
        out &= (1 << PLAIN_BITS) - 1
        return out

    def _expanded(self, residues: Residues, seeds: list[bytes]) -> object:
        """Rebuild n ciphertexts: the first with the sum, the others with zeros."""
        total = self._loaded(self._seeded.filled(residues, seeds[0]))
        for seed in seeds[1:]:
            summand = self._loaded(self._seeded.filled(0, seed))
            self._evaluator.add_inplace(total, summand)
        return total

    def _both(self, block: Residues) -> object:
        return self._loaded(self._pair.filled(block.reshape(-1)))

    def _loaded(self, data: bytearray) -> object:
        scheme = self._scheme
        loaded = seal.Ciphertext(scheme.context)
        loaded.load(scheme.context, scheme.file.holding(data))
        return loaded


def create(settings: Mapping[str, object]) -> Scheme:
    """Return the scheme; its parameters are fixed."""
    _ = settings
    return Bfv()
