"""One decoder under attack: what it is fed, and what must hold of how it ends."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Target:
    """A decoder, its inputs, and the check.

    Attributes
    ----------
    name : str
    inputs : strategy of bytes
    probe : callable
        Reads the bytes; raises one of our named errors, or returns: what was read is
        then what the bytes say, which the probe asserts.
    share : int
        Of the time; half of a round takes longer than a decoder, and has more to find.
    """

    name: str
    inputs: st.SearchStrategy[bytes]
    probe: Callable[[bytes], None]
    share: int = 1
