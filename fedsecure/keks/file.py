"""The key-encryption key of a kit: its box key, a file of mode 0600 (RFC 9180)."""

from collections.abc import Mapping

from fedsecure.errors import ConfigurationError
from fedsecure.keks import Kek
from fedsecure.keys import BoxKey


class FileKek:
    """Seals to a member's box key and opens with it.

    Parameters
    ----------
    name : str
        The member's; one name has one box key for good, as the roster has it.
    key : BoxKey
    """

    def __init__(self, name: str, key: BoxKey) -> None:
        self._name, self._key = name, key

    @property
    def id(self) -> str:
        """The member's name."""
        return self._name

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Return `secret` sealed to the box key; 48 bytes longer."""
        return self._key.public.seal(secret, info)

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to the box key; else VerificationError."""
        return self._key.open(sealed, info)


def create(settings: Mapping[str, object]) -> Kek:
    """Return the box key of a kit as a key-encryption key.

    Parameters
    ----------
    settings : mapping
        ``name``: the member's; ``key``: its `BoxKey`.

    Raises
    ------
    ConfigurationError
        One of them is missing.
    """
    name, key = settings.get("name"), settings.get("key")
    if not isinstance(name, str) or not name or not isinstance(key, BoxKey):
        raise ConfigurationError("kek=file needs the name of a kit and its box key")
    return FileKek(name, key)
