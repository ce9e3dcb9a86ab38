"""What quantising took from a site's update, kept until the next one (error feedback).

ENCRYPTION.md section 6; Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019.
Used with privacy off only: a residual carries un-noised data into a later round.

The order that makes a crash harmless: the parts of round r are durable before its
answer is, and they count only once that answer is kept. So an answered round is never
encoded again, and its residual is in exactly one later answer; a round that died before
its answer leaves parts that nobody reads, and begins anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsecure.errors import NotFound, VerificationError
from fedsecure.stores import Store
from fedsecure.update import Vector

_FLOAT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Carry:
    """One round's use of the residual: what came, and what goes on.

    Attributes
    ----------
    store : Store
    folder : str
        Of the run's residuals.
    source : int
        The round whose residual is added; 0: none.
    number : int
        The round that is encoded now; 0: it leaves nothing.
    """

    store: Store
    folder: str
    source: int
    number: int

    def add(self, values: Vector, start: int = 0) -> Vector:
        """Return values and what the last answer left of them; a new vector.

        Parameters
        ----------
        values : Vector
            The whole vector, or a chunk of it.
        start : int
            Where the chunk begins in the whole; chunks are the same in every round.

        Raises
        ------
        VerificationError
            The kept part is missing, or of another length or not finite.
        """
        if not self.source:
            return values.copy()
        key = f"{self.folder}{self.source}.{start}"
        wanted = _FLOAT_BYTES * len(values)
        try:
            data = self.store.get(key, wanted)
        except NotFound as missing:
            raise VerificationError(_broken(key, "is missing")) from missing
        if len(data) != wanted:
            raise VerificationError(
                _broken(key, f"has {len(data)} bytes, not {wanted}")
            )
        left = np.frombuffer(data, dtype="<f8")
        if not np.isfinite(left).all():
            raise VerificationError(_broken(key, "holds NaN or Inf"))
        added: Vector = values + left
        return added

    def keep(self, left: Vector, start: int = 0) -> None:
        """Make a chunk's residual durable; it counts once the round is answered."""
        if self.number:
            data = left.astype("<f8").tobytes()
            self.store.put(f"{self.folder}{self.number}.{start}", data)


@dataclass(frozen=True, slots=True)
class Residual:
    """A site's residuals of one run.

    Attributes
    ----------
    store : Store
    run : str
    answered : callable
        Round number -> whether this site's answer to that round is kept.
    """

    store: Store
    run: str
    answered: Callable[[int], bool]

    def begin(self, number: int) -> Carry:
        """Clear what is of no use and return round `number`'s carry.

        To be called before the round's first chunk, and again when the round is encoded
        again: what an unfinished try left is removed. Removed too are residuals that
        went into a later answer. A round older than the last answered one takes and
        leaves nothing, for its residual is used up.
        """
        kept = {n for n in self._rounds() if n != number and self.answered(n)}
        source = max(kept, default=0)
        self._forget(lambda n: n != source)
        if source > number:
            return Carry(self.store, self._folder, 0, 0)
        return Carry(self.store, self._folder, source, number)

    def forget(self) -> None:
        """Remove all, when the run has ended."""
        self._forget(lambda _: True)

    @property
    def _folder(self) -> str:
        return f"{self.run}/residual/"

    def _rounds(self) -> set[int]:
        return {_round_of(key) for key in self.store.keys(self._folder)}

    def _forget(self, unwanted: Callable[[int], bool]) -> None:
        for key in self.store.keys(self._folder):
            if unwanted(_round_of(key)):
                self.store.delete(key)


def _round_of(key: str) -> int:
    name = key.rsplit("/", 1)[1].split(".", maxsplit=1)[0]
    return int(name) if name.isdecimal() else 0


def _broken(key: str, what: str) -> str:
    return (
        f"{key} {what}: what the last update left is lost. Remove this run's residual "
        "folder to go on without it"
    )
