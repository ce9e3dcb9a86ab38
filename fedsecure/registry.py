"""Names to plugs, from the closed set of a socket's own files."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from fedsecure.errors import ConfigurationError, UnknownPlug

SOCKETS = ("accounting", "stores", "metadata", "he", "backends", "keks")


def names(socket: str) -> tuple[str, ...]:
    """Return the plugs of `socket` by file name, sorted.

    Raises
    ------
    UnknownPlug
        If there is no such socket.
    """
    if socket not in SOCKETS:
        msg = f"socket {socket!r} is unknown; sockets: {', '.join(SOCKETS)}"
        raise UnknownPlug(msg)
    folder = Path(__file__).parent / socket
    return tuple(sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__"))


def load(socket: str, name: str) -> ModuleType:
    """Import one plug and nothing else; its `create` makes the object.

    The name is compared with the socket's own files before anything is imported, so a
    name that came over a wire can import nothing else.

    Raises
    ------
    UnknownPlug
        If the socket has no plug of that name.
    ConfigurationError
        If the plug's own dependency is not installed.
    """
    known = names(socket)
    if name not in known:
        msg = f"{socket}: no plug named {name!r}; choose one of: {', '.join(known)}"
        raise UnknownPlug(msg)
    try:
        return importlib.import_module(f"fedsecure.{socket}.{name}")
    except ModuleNotFoundError as missing:
        package = missing.name
        msg = f"{socket}={name} needs the package {package!r}, which is not installed"
        raise ConfigurationError(msg) from missing
