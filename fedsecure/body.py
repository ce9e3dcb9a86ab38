"""What stands in the body of an update and of a sum: encrypted blocks, then open ones.

One ciphertext, or two where a plan leaves some tensors open (ENCRYPTION.md section 14);
both add alike, and whoever adds them learns no more than how many blocks are open. What
follows them, masks need. Knows no key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedsecure.ciphertext import (
    HEADER_BYTES,
    Ciphertext,
    Wire,
    announced_bytes,
    form,
    to_chunks,
    wire_bytes,
)
from fedsecure.errors import VerificationError
from fedsecure.outgoing import Bytes
from fedsecure.running_sum import RunningSum
from fedsecure.update import IntVector

OPEN_MODULUS = 1 << 59
"""As `insecure_plain`: a multiple of 2**48, so sums are right modulo that."""
_PLAIN_BITS = 48


@dataclass(frozen=True, slots=True)
class Form:
    """How every update of a run begins, and its open blocks if it has any.

    Attributes
    ----------
    headers : tuple of bytes
        40 bytes each: of the encrypted blocks, and of the open ones or none.
    """

    headers: tuple[bytes, ...]

    @classmethod
    def of(
        cls, sample: Ciphertext, closed: int, opened: int = 0, slots: int = 0
    ) -> "Form":
        """Return the form of updates like `sample`.

        Parameters
        ----------
        closed, opened : int
            How many blocks are encrypted, and how many are open.
        slots : int
            Coefficients of a block, if some are open: its N, without a scheme.
        """
        headers = [form(sample, closed)]
        if opened:
            empty = np.zeros((1, slots), dtype=np.int64)
            headers.append(form(seal_open(sample.key_id, empty), opened))
        return cls(tuple(headers))

    @classmethod
    def read(cls, data: Bytes) -> "Form":
        """Return the form a custodian named.

        Raises
        ------
        VerificationError
            Not one header or two, or a shape out of bounds.
        """
        if len(data) not in {HEADER_BYTES, 2 * HEADER_BYTES}:
            raise VerificationError(
                f"form of {len(data)} bytes, must be {HEADER_BYTES} or twice that"
            )
        places = range(0, len(data), HEADER_BYTES)
        headers = tuple(bytes(data[at : at + HEADER_BYTES]) for at in places)
        found = cls(headers)
        _ = found.size
        return found

    @property
    def size(self) -> int:
        """Bytes of all ciphertexts of an update together."""
        return sum(announced_bytes(header) for header in self.headers)

    def to_bytes(self) -> bytes:
        """Return the headers, one behind the other."""
        return b"".join(self.headers)

    def wires(self, body: Bytes, key_id: bytes) -> tuple[tuple[Wire, ...], memoryview]:
        """Return an update's ciphertexts, unread, and what is behind them.

        Raises
        ------
        VerificationError
            It does not have this form, or is shorter.
        """
        view, at = memoryview(body), 0
        found = []
        for header in self.headers:
            if view[at : at + HEADER_BYTES] != header:
                raise VerificationError("update has another form than the run's")
            end = at + announced_bytes(header)
            found.append(Wire(view[at:end], key_id=key_id, max_summands=1))
            at = end
        return tuple(found), view[at:]


class BodySum:
    """The sum of updates' bodies: one running sum, or two.

    Parameters
    ----------
    key_id : bytes
    parts : int
        Ciphertexts in a body.
    max_summands : int
    """

    def __init__(self, key_id: bytes, parts: int, *, max_summands: int) -> None:
        self._sums = [
            RunningSum(key_id, max_summands=max_summands) for _ in range(parts)
        ]
        self._checked: Sequence[Wire] | None = None

    def check(self, summand: Sequence[Wire]) -> None:
        """Return only if all parts may be added; VerificationError otherwise."""
        self._checked = None
        for total, part in zip(self._sums, summand, strict=True):
            total.check(part)
        self._checked = summand

    def add(self, summand: Sequence[Wire]) -> None:
        """Add an update whole, or refuse it whole; see `RunningSum.check`."""
        if self._checked is not summand:
            self.check(summand)
        self._checked = None
        for total, part in zip(self._sums, summand, strict=True):
            total.add(part)

    @property
    def size(self) -> int:
        """Bytes of the sum's wire form."""
        totals = (each.total() for each in self._sums)
        return sum(wire_bytes(t.shape, len(t.seeds)) for t in totals)

    def chunks(self) -> Iterator[bytes]:
        """Yield the sum's wire form, part by part; VerificationError if it is empty."""
        for total in self._sums:
            yield from to_chunks(total.total())


def cut_sum(body: Bytes, parts: int) -> tuple[tuple[memoryview, ...], memoryview]:
    """Return a sum's ciphertexts, not looked at further, and what is behind them.

    Raises
    ------
    VerificationError
        A header is missing, or says a shape out of bounds.
    """
    rest, found = memoryview(body), []
    for _ in range(parts):
        end = announced_bytes(rest)
        found.append(rest[:end])
        rest = rest[end:]
    return tuple(found), rest


def seal_open(key_id: bytes, blocks: IntVector) -> Ciphertext:
    """Return blocks as they are, in the form in which they are added.

    Parameters
    ----------
    blocks : IntVector
        Shape (n, slots), int64 in [0, 2**48).
    """
    residues = blocks.astype(np.uint64)[:, None, :]
    return Ciphertext(key_id, OPEN_MODULUS, residues, (), 1)


def read_open(total: Ciphertext, slots: int) -> IntVector:
    """Return the coefficients of open blocks' sum, shape (n, slots), in [0, 2**48).

    Raises
    ------
    VerificationError
        Another modulus or N, seeds, or a residue that is not below the modulus.
    """
    if total.modulus != OPEN_MODULUS or total.seeds:
        raise VerificationError(
            f"open blocks modulo {total.modulus} with {len(total.seeds)} seeds, must "
            f"be modulo {OPEN_MODULUS} without"
        )
    if total.residues.shape[1:] != (1, slots):
        raise VerificationError(f"open blocks of shape {total.residues.shape}")
    total.check_residues()
    coefficients: IntVector = total.residues[:, 0].astype(np.int64)
    coefficients &= (1 << _PLAIN_BITS) - 1
    return coefficients
