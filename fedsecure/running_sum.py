"""The sum of updates as they arrive, added from the wire's bytes; knows no key.

Everything about a summand is checked before the first of its residues is added, so what
is refused leaves no trace (ENCRYPTION.md section 8).
"""

import numpy as np
from numpy.typing import NDArray

from fedsecure.ciphertext import SEED_BYTES, Ciphertext, Wire
from fedsecure.errors import VerificationError
from fedsecure.residues import Residues, add_modulo

Summand = Ciphertext | Wire
_Beginnings = NDArray[np.uint64]


class RunningSum:
    """The sum of updates as they arrive; memory flat in their number, seeds apart.

    Residues are kept unpacked, 8 bytes each: with profile 20 and one polynomial that is
    as much as the plain fp32 update, and no chunk is packed and unpacked again for
    every summand. Seeds take 64 bytes a block and summand, and 8 more to find repeats.

    Parameters
    ----------
    key_id : bytes
        The run key all summands must be under.
    max_summands : int
        The headroom the fields were sized for.
    """

    def __init__(self, key_id: bytes, *, max_summands: int) -> None:
        self._key_id = key_id
        self._max = max_summands
        self._modulus = 0
        self._sum: Residues | None = None
        self._seeds: list[bytes] = []
        self._seen: _Beginnings = np.empty(0, dtype=np.uint64)
        self._summands = 0
        self._checked: Summand | None = None

    def check(self, summand: Summand) -> None:
        """Return only if `summand` may be added.

        Raises
        ------
        VerificationError
            Another key, modulus or shape, a residue >= q, a seed seen before, or more
            summands than the fields have room for.
        """
        self._checked = None
        if summand.key_id != self._key_id:
            raise VerificationError("ciphertext is under another run key")
        if self._summands + summand.summands > self._max:
            raise VerificationError(
                f"{self._summands + summand.summands} summands, room for {self._max}"
            )
        if self._sum is not None:
            theirs = (summand.modulus, summand.shape, bool(summand.seeds))
            ours = (self._modulus, self._sum.shape, bool(self._seeds))
            if theirs != ours:
                raise VerificationError(f"ciphertext is {theirs}, the sum is {ours}")
        summand.check_residues()
        self._check_seeds(summand.seeds)
        self._checked = summand

    def add(self, summand: Summand) -> None:
        """Add an update; see `check` for what is refused, and is not done twice."""
        if self._checked is not summand:
            self.check(summand)
        self._checked = None
        if self._sum is None:
            self._sum = np.zeros(summand.shape, dtype=np.uint64)
            self._modulus = summand.modulus
        first = 0
        for chunk in summand.chunks():
            blocks = len(chunk.residues)
            part = self._sum[first : first + blocks]
            add_modulo(part, chunk.residues, self._modulus)
            first += blocks
        seeds = summand.seeds
        self._seeds += seeds
        self._seen = np.sort(np.concatenate([self._seen, _beginnings(seeds)]))
        self._summands += summand.summands

    def total(self) -> Ciphertext:
        """Return the sum; its residues are this object's own, not a copy.

        Raises
        ------
        VerificationError
            Nothing was added.
        """
        if self._sum is None:
            raise VerificationError("the sum of no update")
        seeds = tuple(self._seeds)
        return Ciphertext(self._key_id, self._modulus, self._sum, seeds, self._summands)

    def _check_seeds(self, fresh: tuple[bytes, ...]) -> None:
        """Compare the first 8 bytes of all seeds, and whole seeds where those agree."""
        begun = _beginnings(fresh)
        ordered = np.sort(begun)
        doubled = ordered[1:][ordered[1:] == ordered[:-1]]
        at = np.searchsorted(self._seen, ordered)
        found = np.append(self._seen, np.uint64(0))[at]
        again = ordered[(found == ordered) & (at < len(self._seen))]
        suspect = np.union1d(doubled, again)
        if not suspect.size:
            return
        whole: set[bytes] = set()
        for seed in _seeds_among(tuple(self._seeds) + fresh, suspect):
            if seed in whole:
                raise VerificationError("ciphertext repeats a seed")
            whole.add(seed)


def _beginnings(seeds: tuple[bytes, ...]) -> _Beginnings:
    """Return the first 8 bytes of each seed, as numbers."""
    words = [np.frombuffer(one, dtype="<u8")[:: SEED_BYTES // 8] for one in seeds]
    return np.concatenate(words) if words else np.empty(0, dtype=np.uint64)


def _seeds_among(seeds: tuple[bytes, ...], suspect: _Beginnings) -> list[bytes]:
    """Return the seeds that begin as one of the suspects does."""
    found: list[bytes] = []
    for one in seeds:
        at = np.flatnonzero(np.isin(_beginnings((one,)), suspect)) * SEED_BYTES
        found += [one[i : i + SEED_BYTES] for i in at]
    return found
