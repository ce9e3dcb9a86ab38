"""CKKS behind the integer interface: the baseline other frameworks use, made exact.

N = 4096, one 60-bit prime, scale 2**25, seeded and symmetric: 128-bit line of the
HE-standard table. A coefficient of 48 bits is two limbs of 24, each the real part of
one of 2048 slots, so a ciphertext carries 1024 coefficients: four times the bytes of
`bfv`, 15 a parameter with profile 20. Why it is exact:

- fresh error and rounding are at most 21 + 1/2 a polynomial coefficient, so at most
  4096 * 21.5 n in a slot: below scale / 2 = 2**24 for n <= 93, rounding is right for
  certain (double precision adds less than a tenth of that);
- a sum of n limbs is below 93 * 2**24, times the scale 2**55.6, below q / 2 = 2**59.

CKKS is not IND-CPA-D secure: its decryptions belong to key owners alone (Li and
Micciancio, EUROCRYPT 2021; SEAL's SECURITY.md). The rounded integers leak no error, but
nobody proved that for this use, so it warns at each construction, and a plan with a
claimed epsilon refuses it (`runplan`).
"""

import logging
from collections.abc import Mapping

import numpy as np
import tenseal.sealapi as seal

from fedsecure.ciphertext import SEED_BYTES, Ciphertext, check_total
from fedsecure.errors import ConfigurationError, OverflowRisk, VerificationError
from fedsecure.he import Decryptor, Encryptor, Scheme, SecretKey
from fedsecure.residues import Residues
from fedsecure.sealfile import SLOTS as DEGREE
from fedsecure.sealfile import MemoryFile, PairForm, SeededForm
from fedsecure.update import IntVector

log = logging.getLogger(__name__)

NAME = "ckks"
MODULUS = 1152921504606830593
PLAIN_BITS = 48
LIMB_BITS = 24
SLOTS = DEGREE // 4
"""Coefficients a ciphertext: 2048 slots, two a coefficient."""
SCALE = 2.0**25
MAX_SUMMANDS = 93
_LIMB = (1 << LIMB_BITS) - 1


class Ckks:
    """Parameters, learned layout, and the memory file SEAL reads and writes."""

    def __init__(self) -> None:
        log.warning(
            "ckks is a baseline: it is not IND-CPA-D secure, so no opened sum may "
            "reach anyone without the run key; use encryption=bfv"
        )
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(DEGREE)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, [60]))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set() or self.context.using_keyswitching():
            raise ConfigurationError("ckks: SEAL refuses the parameters at 128 bits")
        self.encoder = seal.CKKSEncoder(self.context)
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
        return CkksEncryptor(self, key, seeded=seeded)

    def decryptor(self, key: SecretKey) -> Decryptor:
        """Return a decryptor for `key`."""
        return CkksDecryptor(self, key)

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

    def plaintext(self, limbs: list[float]) -> object:
        """Return real slots as SEAL's plaintext."""
        plain = seal.Plaintext()
        self.encoder.encode(limbs, SCALE, plain)
        return plain

    def _learn(self) -> tuple[SeededForm, PairForm]:
        secret = seal.KeyGenerator(self.context).secret_key()
        encryptor = seal.Encryptor(self.context, secret)
        plain, both = self.plaintext([0.0]), seal.Ciphertext()
        encryptor.encrypt_symmetric(plain, both)
        seeded = self.file.saved(encryptor.encrypt_symmetric(plain))
        return SeededForm(seeded), PairForm(self.file.saved(both))


class CkksEncryptor:
    """Fresh ciphertexts under one run key: seeded, or of two polynomials."""

    def __init__(self, scheme: Ckks, key: SecretKey, *, seeded: bool) -> None:
        self._scheme = scheme
        self._key_id = key.key_id
        self._seal = seal.Encryptor(scheme.context, scheme.secret(key))
        self._both = None if seeded else seal.Ciphertext()

    @property
    def slots(self) -> int:
        """1024."""
        return SLOTS

    def encrypt(self, blocks: IntVector) -> Ciphertext:
        """Encrypt shape (blocks, 1024), int64 in [0, 2**48)."""
        if blocks.ndim != 2 or blocks.shape[1] != SLOTS:
            raise VerificationError(
                f"blocks of shape {blocks.shape}, want (n, {SLOTS})"
            )
        if blocks.size and not 0 <= blocks.min() <= blocks.max() < 1 << PLAIN_BITS:
            raise OverflowRisk(f"a coefficient is not in [0, 2**{PLAIN_BITS})")
        polynomials = 1 if self._both is None else 2
        residues = np.empty((len(blocks), polynomials, DEGREE), dtype=np.uint64)
        seeds = [self._one(block, residues[i]) for i, block in enumerate(blocks)]
        carried = (b"".join(seeds),) if self._both is None else ()
        return Ciphertext(self._key_id, MODULUS, residues, carried, 1)

    def _one(self, block: IntVector, into: Residues) -> bytes:
        """Put a block's polynomials `into`; return its seed, if it has one."""
        limbs = np.concatenate([block & _LIMB, block >> LIMB_BITS])
        plain = self._scheme.plaintext(limbs.astype(np.float64).tolist())
        file, scheme = self._scheme.file, self._scheme
        if self._both is None:
            return scheme.form.read(
                file.saved(self._seal.encrypt_symmetric(plain)), into[0]
            )
        self._seal.encrypt_symmetric(plain, self._both)
        scheme.pair.read(file.saved(self._both), into)
        return b""


class CkksDecryptor:
    """Opens sums; what SEAL loads is framed by this process's own constants."""

    def __init__(self, scheme: Ckks, key: SecretKey) -> None:
        self._scheme = scheme
        self._key_id = key.key_id
        self._seal = seal.Decryptor(scheme.context, scheme.secret(key))
        self._evaluator = seal.Evaluator(scheme.context)
        self._seeded, self._pair = scheme.form.frame(), scheme.pair.frame()
        self._plain = seal.Plaintext()

    def decrypt(self, total: Ciphertext) -> IntVector:
        """Return shape (blocks, 1024), int64 in [0, 2**48); exact after rounding."""
        check_total(
            total,
            key_id=self._key_id,
            modulus=MODULUS,
            slots=DEGREE,
            max_summands=MAX_SUMMANDS,
        )
        out = np.empty((len(total.residues), SLOTS), dtype=np.int64)
        for i, block in enumerate(total.residues):
            start = i * SEED_BYTES
            seeds = [s[start : start + SEED_BYTES] for s in total.seeds]
            loaded = self._expanded(block[0], seeds) if seeds else self._both(block)
            self._seal.decrypt(loaded, self._plain)
            out[i] = self._coefficients()
        return out

    def _coefficients(self) -> IntVector:
        decoded = self._scheme.encoder.decode_double(self._plain)
        slots = np.rint(decoded).astype(np.int64)
        low, high = slots[:SLOTS], slots[SLOTS:]
        return np.asarray((low + (high << LIMB_BITS)) & ((1 << PLAIN_BITS) - 1))

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
    return Ckks()
