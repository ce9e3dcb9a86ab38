"""A user's own data set or model, named ``package.module:function`` locally."""

import importlib
from collections.abc import Callable
from typing import Any

from fedsecure.errors import ConfigurationError


def importable(name: str, option: str) -> Callable[..., Any]:
    """Import the function that local configuration names.

    Importing runs the module's code, so the name must never come over a wire alone.

    Parameters
    ----------
    name : str
        ``package.module:function``.
    option : str
        The option that holds it, for messages.

    Raises
    ------
    ConfigurationError
        Malformed name, no such module or function, or something not callable.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ConfigurationError(
            f"{option}={name!r}, must read package.module:function"
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as missing:
        raise ConfigurationError(
            f"{option}={name!r} cannot be imported: {missing}; is it installed in this "
            "environment?"
        ) from missing
    if not callable(found):
        raise ConfigurationError(f"{option}={name!r} is no function")
    checked: Callable[..., Any] = found
    return checked
