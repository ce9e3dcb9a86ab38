"""Which files of a kit a backup holds, and what a restore does with each; pure.

A backup never goes over what is there: a diary that is longer here stays, one that is
shorter here is continued, and any other difference is refused before a byte is written.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedsecure.errors import VerificationError

LEDGER = "state/ledger.jsonl"
INDEX = "index.json"
_LEFT_OUT = re.compile(
    r"state/(flwr[^/]*|home|worker)/.*|state/superlink\.sqlite.*"
    r"|(.*/)?([^/]*\.(log|sock|lock)|\.tmp-[^/]*)"
)
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Act(StrEnum):
    """What a restore does with one file."""

    WRITE = "write"
    SAME = "same"
    CONTINUE = "continue"
    LONGER = "longer here"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Filed:
    """One file of a backup.

    Attributes
    ----------
    name : str
        Below the kit.
    size : int
    digest : str
        SHA-256, hexadecimal.
    """

    name: str
    size: int
    digest: str


def chosen(files: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a kit that a backup holds, in the order they are copied.

    The ledger last: whatever the shelf holds was permitted by a line that is already
    there, so a copy of a running site is never ahead of its own ledger.
    """
    kept = (name for name in files if not _LEFT_OUT.fullmatch(name))
    return tuple(sorted(kept, key=lambda name: (name == LEDGER, name)))


def check_name(name: str) -> str:
    """Return a name that stays below the kit it is restored to.

    Raises
    ------
    VerificationError
        Otherwise.
    """
    parts = name.split("/")
    if any(not _PLAIN.fullmatch(p) or p in {".", ".."} for p in parts):
        raise VerificationError(f"the backup names a file {name!r}: not below a kit")
    return name


def grows(name: str) -> bool:
    """Return whether a file is only ever appended to."""
    return name.startswith("state/") and name.endswith(".jsonl")


def whole_lines(data: bytes) -> bytes:
    """Return a growing file up to its last whole line."""
    return data[: data.rfind(b"\n") + 1]


def decide(name: str, there: bytes | None, data: bytes) -> Act:
    """Return what becomes of a file.

    Parameters
    ----------
    there : bytes
        What lies where it would go; None: nothing.
    data : bytes
        What the backup has.
    """
    if there is None:
        return Act.WRITE
    if there == data:
        return Act.SAME
    if grows(name) and there.startswith(data):
        return Act.LONGER
    if grows(name) and data.startswith(there):
        return Act.CONTINUE
    return Act.REFUSE


def check_index(index: Iterable[Filed], found: Mapping[str, Filed]) -> None:
    """Return only if a backup holds exactly the files its index names.

    Raises
    ------
    VerificationError
        Names the first that is missing, changed or not named.
    """
    named = {filed.name: filed for filed in index}
    for name in sorted({*named, *found}):
        if named.get(name) != found.get(name):
            raise VerificationError(f"the backup's {name} is not what its index says")
