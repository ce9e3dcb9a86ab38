"""A daemon's configuration beside its kit: one JSON file, checked at the door."""

import json
from pathlib import Path
from typing import TypeVar

from fedsecure.config import Section, parse_section
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, NotFound

MAX_BYTES = 1 << 20
_S = TypeVar("_S", bound=Section)


def read_section(kind: type[_S], path: Path) -> _S | None:
    """Return the checked file; None where there is none.

    Raises
    ------
    ConfigurationError
        Not JSON, or a value out of bounds.
    """
    try:
        data = SystemDisk().read(path, MAX_BYTES)
    except NotFound:
        return None
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as bad:
        raise ConfigurationError(f"{path} is not JSON: {bad}") from bad
    return parse_section(kind, values, path)
