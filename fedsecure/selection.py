"""Which blocks of an update travel open where a plan encrypts some tensors only.

Everything else of a block stays as it is: its number, order of values, tag and masks
(ENCRYPTION.md section 14). A block is encrypted if it holds one value of an encrypted
tensor, or the weight; so what is open is a little less than the open tensors. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsecure.ciphertext import CHUNK_BLOCKS
from fedsecure.encoding import Profile
from fedsecure.errors import ConfigurationError
from fedsecure.patterns import Pattern
from fedsecure.update import IntVector, Layout

Flags = NDArray[np.bool_]
"""Shape (blocks,): whether a block is open."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Encrypted and open blocks of an update; all sites of a run have the same.

    Attributes
    ----------
    is_open : Flags
    """

    is_open: Flags

    @property
    def closed(self) -> IntVector:
        """Numbers of the encrypted blocks, rising; never empty."""
        return np.flatnonzero(~self.is_open)

    @property
    def opened(self) -> IntVector:
        """Numbers of the open blocks, rising."""
        return np.flatnonzero(self.is_open)

    @classmethod
    def whole(cls, blocks: int) -> "Selection":
        """Return the selection that leaves nothing open."""
        return cls(np.zeros(blocks, dtype=np.bool_))


def runs(numbers: IntVector) -> Iterator[tuple[int, int]]:
    """Yield (first block, blocks) of runs without a gap, at most 16 blocks long.

    Parameters
    ----------
    numbers : IntVector
        Shape (n,), rising.
    """
    ends = np.flatnonzero(np.diff(numbers) != 1) + 1
    for run in np.split(numbers, ends):
        for at in range(0, len(run), CHUNK_BLOCKS):
            part = run[at : at + CHUNK_BLOCKS]
            yield int(part[0]), len(part)


def encrypted_tensors(layout: Layout, patterns: Sequence[str]) -> tuple[bool, ...]:
    """Return, by tensor, whether its whole name matches one of the patterns.

    Raises
    ------
    ConfigurationError
        A pattern matches no tensor: misspelt, it would leave one open; or is none that
        is read, or a name is too long.
    """
    return _matched(layout.names, tuple(patterns))


@lru_cache(maxsize=8)  # a run asks for the same thrice a round
def _matched(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[bool, ...]:
    found = [False] * len(names)
    for text in patterns:
        pattern = Pattern(text)
        matched = [pattern.matches(name) for name in names]
        if not any(matched):
            shown = ", ".join(names[:8])
            more = ", ..." if len(names) > 8 else ""
            raise ConfigurationError(
                f"encryption.encrypt_layers: {text!r} matches no tensor of the model; "
                f"it has {shown}{more}"
            )
        found = [old or new for old, new in zip(found, matched, strict=True)]
    return tuple(found)


def select(
    layout: Layout,
    patterns: Sequence[str],
    profile: Profile,
    slots: int,
    *,
    weighted: bool,
) -> Selection:
    """Return which blocks of a model's updates travel open.

    Parameters
    ----------
    layout : Layout
    patterns : sequence of str
        Of the tensors that are encrypted.
    profile : Profile
    slots : int
        Coefficients of a block, the tag's included.
    weighted : bool
        Whether a weight follows the parameters.

    Raises
    ------
    ConfigurationError
        A pattern matches no tensor, or nothing would be encrypted.
    """
    chosen = encrypted_tensors(layout, patterns)
    count, size = layout.num_parameters + weighted, profile.a_block(slots)
    is_open = np.ones(profile.blocks(count, slots), dtype=np.bool_)
    start = 0
    for name, shape, encrypted in zip(layout.names, layout.shapes, chosen, strict=True):
        length = Layout((name,), (shape,)).num_parameters
        if encrypted and length:
            is_open[start // size : (start + length - 1) // size + 1] = False
        start += length
    if weighted:
        is_open[start // size] = False
    if is_open.all():
        raise ConfigurationError(
            f"encryption.encrypt_layers={list(patterns)!r} would encrypt nothing: the "
            "tensors it matches hold no value"
        )
    return Selection(is_open)
