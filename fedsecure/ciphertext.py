"""Ciphertexts as residues modulo q, and their sum; knows no key and no scheme.

All schemes add residue by residue modulo q, so the server needs numpy and nothing else
(ENCRYPTION.md sections 8 and 9).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.uint64]
"""Shape (blocks, polynomials, N), uint64 below q."""


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """One update, or a sum of them, under encryption."""

    key_id: bytes
    modulus: int
    residues: Residues
    seeds: tuple[bytes, ...]
    summands: int
