"""Where a key-encryption key lies in a PKCS#11 token, and the file that holds its PIN.

The PIN comes from a file or a systemd credential: never from a command line, the
environment or a configuration, and it is in no message.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsecure.errors import ConfigurationError

_MAX_PIN = 1 << 10
_FIELDS = ("module", "token", "label", "pin_file", "pin_credential")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the key is; no secret.

    Attributes
    ----------
    module : str
        Path of the device's PKCS#11 library.
    token, label : str
        The token's label and the key's.
    pin : Path
        The file that holds the PIN.
    private : bool
        Whether others may not read that file; a systemd credential's folder sees to it.
    """

    module: str
    token: str
    label: str
    pin: Path
    private: bool

    def __str__(self) -> str:
        return f"key {self.label!r} of token {self.token!r}"


def read_place(settings: Mapping[str, object]) -> Place:
    """Return where a key is, from a configuration's fields.

    Raises
    ------
    ConfigurationError
        One is missing, or no credential of that name reaches this process.
    """
    named = {k: settings.get(k) for k in _FIELDS}
    values = {k: str(v) for k, v in named.items() if v is not None}
    missing = sorted({"module", "token", "label"} - set(values))
    if missing:
        raise ConfigurationError(f"kek=pkcs11 needs {', '.join(missing)}")
    if ("pin_file" in values) == ("pin_credential" in values):
        raise ConfigurationError(
            "kek=pkcs11 needs one of pin_file, a file of mode 0600, and "
            "pin_credential, the name of a systemd credential; never the PIN itself"
        )
    pin = Path(values.get("pin_file", ""))
    if "pin_credential" in values:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        name = values["pin_credential"]
        if folder is None or "/" in name or name in {".", ".."}:
            raise ConfigurationError(
                f"kek pin_credential={name!r}: no credential of this name reaches this "
                "process; put LoadCredential= into its systemd unit, or name a pin_file"
            )
        pin = Path(folder) / name
    return Place(
        values["module"],
        values["token"],
        values["label"],
        pin,
        private="pin_credential" in values,
    )


def read_pin(place: Place) -> str:
    """Return a token's PIN: the first line of its file, without the line's end.

    Raises
    ------
    ConfigurationError
        Missing, empty, or readable by others.
    """
    path = place.pin
    try:
        mode = path.stat().st_mode
        if not path.is_absolute() or not stat.S_ISREG(mode):
            raise ConfigurationError(
                f"kek pin_file {path} is no absolute path of a file"
            )
        if mode & 0o077 and not place.private:
            raise ConfigurationError(
                f"{path} can be read by others: chmod 600 {path}, and change the PIN"
            )
        with path.open("rb") as file:
            line = file.read(_MAX_PIN).split(b"\n", 1)[0].rstrip(b"\r")
        pin = line.decode()
    except OSError as failed:
        raise ConfigurationError(
            f"{path} must hold the PIN of token {place.token!r}: {failed.strerror}"
        ) from failed
    except UnicodeDecodeError as bad:
        raise ConfigurationError(f"{path}: the PIN is no UTF-8 text") from bad
    if not pin:
        raise ConfigurationError(f"{path}: the first line is empty, it must be the PIN")
    return pin
