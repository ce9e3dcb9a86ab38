"""What a machine must have for a drill: rights and programs."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

_FAKETIME = (
    "/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)
_PACKAGES = {
    "etcd": "etcd-server",
    "faketime": "faketime",
    "ip": "iproute2",
    "mount": "mount",
    "nft": "nftables",
    "umount": "mount",
}


def missing(
    programs: Sequence[str],
    *,
    root: bool = False,
    find: Callable[[str], str | None] = shutil.which,
    user: Callable[[], int] = os.geteuid,
) -> list[str]:
    """Return what is not here, one sentence each, with what to do.

    Parameters
    ----------
    programs : sequence of str
    root : bool
        Whether it takes root: mounts and network namespaces do.
    find, user : callable
        Where a program lies, or None; who this is.
    """
    out = [
        f"the program {name!r} is missing: install Debian's {_PACKAGES[name]}, or its "
        "like"
        for name in programs
        if find(name) is None
    ]
    if root and user() != 0:
        out.append("this drill mounts or makes network namespaces: run it as root")
    return out


def faketime_library() -> str:
    """Return the path of libfaketime, or "" if it is not here."""
    machine = os.uname().machine
    places = [place.format(machine=machine) for place in _FAKETIME]
    return next((place for place in places if Path(place).exists()), "")


def missing_faketime() -> list[str]:
    """Return a sentence if libfaketime is not here."""
    if faketime_library():
        return []
    return ["libfaketime is missing: install Debian's faketime, or its like"]
