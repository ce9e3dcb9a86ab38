"""Make the known answers of `bfv`: ``python -m tests.vectors.generate``.

SEAL's generator is set to fixed words here and nowhere else: with it, key and seeds
repeat, and two ciphertexts of one seed give away the difference of their plaintexts. A
test greps for the call. Digests are of bodies, not of zstd frames, whose bytes may
change with the library.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal
import zstandard
from numpy.typing import NDArray

from fedsecure import registry
from fedsecure.ciphertext import to_bytes
from fedsecure.encoding import pack, profile, tags
from fedsecure.he import SecretKey
from fedsecure.running_sum import RunningSum
from fedsecure.update import IntVector, RoundId

HERE = Path(__file__).parent
KEY_ID = bytes(range(16))
TAG_KEY = bytes(range(32))
ROUND = RoundId("known", 1)
NAMES = ("zero", "saturated", "random")
TOTAL = "total"
"""The sum of the three in the form `sum`: both polynomials, no seed."""
_POLYNOMIALS = 97  # where the residues of a body begin


def fixed_words(number: int) -> list[int]:
    """Return eight words of 64 bits for SEAL's generator."""
    digest = hashlib.sha512(b"fedsecure known answers %d" % number).digest()
    return list(struct.unpack("<8Q", digest))


def fixed_context(number: int) -> Any:
    """Return the context of `bfv`, but for a generator that repeats."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(4096)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(4096, [60]))
    parameters.set_plain_modulus(seal.Modulus(1 << 48))
    factory = seal.Blake2xbPRNGFactory(fixed_words(number))
    parameters.set_random_generator(factory)
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)


def plaintext(name: str) -> IntVector:
    """Return one block of an update in profile 20, its tag included."""
    most = (1 << 19) - 1
    stream = hashlib.shake_256(b"known").digest(4 * 8190)
    values = {
        "zero": np.zeros(8190, dtype=np.int64),
        "saturated": np.where(np.arange(8190) % 3 == 0, -most, most),
        "random": np.frombuffer(stream, dtype="<i4").astype(np.int64) >> 12,
    }[name]
    blocks = pack(values, profile("20"), 4096)
    blocks[:, -1] = tags(TAG_KEY, ROUND, name, 1)
    return blocks


def made() -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the facts, and the wire bytes of the three updates by name."""
    scheme: Any = registry.load("he", "bfv").create({})
    scheme.context = fixed_context(0)
    key = scheme.keygen(KEY_ID)
    facts: dict[str, Any] = {
        "made_by": "python -m tests.vectors.generate, tenseal 0.3.18, numpy",
        "key_body_sha256": digest(body(key.secret)),
        "secret": "".join("-0+"[s + 1] for s in secret_polynomial(scheme, key)),
        "updates": {},
    }
    wires, total = {}, RunningSum(KEY_ID, max_summands=3)
    for number, name in enumerate(NAMES, start=1):
        scheme.context = fixed_context(number)
        sealed = scheme.encryptor(key).encrypt(plaintext(name))
        total.add(sealed)
        wires[name] = to_bytes(sealed)
        facts["updates"][name] = {
            "plaintext_sha256": digest(plaintext(name).astype("<u8").tobytes()),
            "body_sha256": digest(seeded_body(scheme, key, plaintext(name)[0])),
            "wire_sha256": digest(wires[name]),
            "seed": sealed.seeds[0].hex(),
        }
    facts["total"] = opened(scheme, key, total)
    facts["pairs"], both = {}, RunningSum(KEY_ID, max_summands=3)
    for number, name in enumerate(NAMES, start=4):
        scheme.context = fixed_context(number)
        pair = scheme.encryptor(key, seeded=False).encrypt(plaintext(name))
        both.add(pair)
        facts["pairs"][name] = {"wire_sha256": digest(to_bytes(pair))}
    facts["total_of_pairs"] = opened(scheme, key, both)
    wires[TOTAL] = to_bytes(both.total())
    return facts, wires


def opened(scheme: Any, key: SecretKey, total: RunningSum) -> dict[str, str]:
    """Return the digests of a sum on the wire and of its opened coefficients."""
    blocks = scheme.decryptor(key).decrypt(total.total())
    return {
        "wire_sha256": digest(to_bytes(total.total())),
        "opened_sha256": digest(blocks.astype("<u8").tobytes()),
    }


def secret_polynomial(scheme: Any, key: SecretKey) -> NDArray[np.int64]:
    """Return s: SEAL decrypts the pair (0, floor(q/t)) to s modulo t."""
    full = seal.Ciphertext()
    encryptor = seal.Encryptor(scheme.context, scheme.secret(key))
    encryptor.encrypt_symmetric(seal.Plaintext("0"), full)
    pair = np.zeros(8192, dtype="<u8")
    pair[4096] = (2**60 - 2**14 + 1) >> 48
    front = body(scheme.file.saved(full))[:_POLYNOMIALS]
    framed = front + pair.tobytes()
    head = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 0, 0, 16 + len(framed))
    full.load(scheme.context, scheme.file.holding(head + framed))
    plain = seal.Plaintext()
    seal.Decryptor(scheme.context, scheme.secret(key)).decrypt(full, plain)
    found = [int(plain[i]) for i in range(plain.coeff_count())]
    found += [0] * (4096 - len(found))
    secret = np.array(found, dtype=np.int64)
    return np.where(secret > 1, secret - (1 << 48), secret)


def seeded_body(scheme: Any, key: SecretKey, block: IntVector) -> bytes:
    """Return what SEAL itself saves for a plaintext, decompressed."""
    plain = seal.Plaintext(" + ".join(_terms(block)))
    encryptor = seal.Encryptor(scheme.context, scheme.secret(key))
    return body(scheme.file.saved(encryptor.encrypt_symmetric(plain)))


def body(saved: bytes) -> bytes:
    """Return what follows SEAL's header of 16 bytes, decompressed."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(saved[16:])


def digest(data: bytes) -> str:
    """Return SHA-256, as hex."""
    return hashlib.sha256(data).hexdigest()


def _terms(block: IntVector) -> list[str]:
    """Return a polynomial in SEAL's own notation, the highest power first."""
    powers = range(len(block) - 1, -1, -1)
    terms = [f"{int(block[i]):X}x^{i}" for i in powers if block[i] and i]
    return [*terms, f"{int(block[0]):X}"]


def main() -> None:
    """Write the known answers beside this file."""
    facts, wires = made()
    for name, wire in wires.items():
        (HERE / f"{name}.fshe").write_bytes(wire)
    text = json.dumps(facts, indent=2) + "\n"
    (HERE / "bfv.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
