"""A user's own data set or model, named ``package.module:function`` locally."""

import importlib
import re
from collections.abc import Callable
from typing import Any

from fedsecure.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


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
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{option}={name!r}, must read package.module:function"
        )
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as bad:
        # The edge to a user's module: importing it runs its code.
        raise ConfigurationError(
            f"{option}={name}: importing {module} raised {type(bad).__name__}: {bad}; "
            "is it installed in this environment?"
        ) from bad
    if not callable(found):
        raise ConfigurationError(f"{option}={name}: {module} has no such function")
    function: Callable[..., Any] = found
    return function
