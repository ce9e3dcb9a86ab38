"""Exact BFV, seeded and symmetric: the default scheme.

N = 4096, one 60-bit prime q = 2**60 - 2**14 + 1, t = 2**48, ternary secret: 192-bit
line of the HE-standard table. A sum of n is right for certain while 22 n < q / 2t, that
is for n <= 93 (ENCRYPTION.md sections 2, 3 and 7).

Only residues below q and 64-byte seeds come from outside; no foreign header meets SEAL.
"""

from collections.abc import Mapping

import numpy as np
import tenseal.sealapi as seal

from fedsecure.ciphertext import SEED_BYTES, Ciphertext, Residues
from fedsecure.errors import ConfigurationError, OverflowRisk, VerificationError
from fedsecure.he import Decryptor, Encryptor, Scheme, SecretKey
from fedsecure.sealfile import (
    POLYNOMIAL_BYTES,
    SLOTS,
    MemoryFile,
    SeededForm,
    read_plaintext,
    write_plaintext,
)
from fedsecure.update import IntVector

NAME = "bfv"
MODULUS = 1152921504606830593
PLAIN_BITS = 48
MAX_SUMMANDS = 93
_ZEROS = bytes(POLYNOMIAL_BYTES)


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
        self.form = self._learn()

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

    def _learn(self) -> SeededForm:
        secret = seal.KeyGenerator(self.context).secret_key()
        encryptor = seal.Encryptor(self.context, secret)
        zero = encryptor.encrypt_symmetric(seal.Plaintext("0"))
        return SeededForm(self.file.saved(zero))


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

    def _one(self, block: IntVector, into: Residues) -> bytes:
        file, scheme = self._scheme.file, self._scheme
        self._plain.load(scheme.context, file.holding(write_plaintext(block)))
        saved = file.saved(self._seal.encrypt_symmetric(self._plain))
        return scheme.form.read(saved, into)


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

    def _one(self, residues: Residues, seeds: list[bytes], into: IntVector) -> None:
        """Rebuild n ciphertexts: the first with the sum, the others with zeros."""
        total = self._load(residues.astype("<u8").tobytes(), seeds[0])
        for seed in seeds[1:]:
            self._evaluator.add_inplace(total, self._load(_ZEROS, seed))
        plain = seal.Plaintext()
        self._seal.decrypt(total, plain)
        read_plaintext(self._scheme.file.saved(plain), into)

    def _load(self, polynomial: bytes, seed: bytes) -> object:
        scheme = self._scheme
        loaded = seal.Ciphertext(scheme.context)
        path = scheme.file.holding(scheme.form.write(polynomial, seed))
        loaded.load(scheme.context, path)
        return loaded


def create(settings: Mapping[str, object]) -> Scheme:
    """Return the scheme; its parameters are fixed."""
    _ = settings
    return Bfv()
