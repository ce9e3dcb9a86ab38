"""The socket for key-encryption keys: what keeps the keys of checkpoints at rest.

A checkpoint's own key is new for every sealing and lies beside its bytes, sealed under
one or more of these. Taking another one seals those few bytes again, never the data.
"""

from typing import Protocol


class Closes(Protocol):
    """What a data key can be put under."""

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Return `secret` so that only the matching key opens it.

        Parameters
        ----------
        secret : bytes
            A data key of 32 bytes.
        info : bytes
            The purpose; opening under another one fails.

        Raises
        ------
        StorageError
            The key's keeper could not be asked.
        """
        ...


class Opens(Protocol):
    """What gives a data key back."""

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed under the same `info`.

        Raises
        ------
        VerificationError
            Another key, another `info`, or changed bytes.
        StorageError
            The key's keeper could not be asked: nothing is known of the bytes.
        """
        ...


class Kek(Closes, Opens, Protocol):
    """A key-encryption key: both directions, and the name it goes by in objects."""

    @property
    def id(self) -> str:
        """Name beside what it sealed: no other key ever had it."""
        ...
