"""Which code an aggregator is: a digest over what its rounds are made with.

A run goes on under the code it was begun with (RESILIENCE sections 8 and 9): an older
aggregator that joins, or a restore by another version, is refused by name.
"""

import hashlib
from pathlib import Path

from fedsecure.disk import Disk

PARTS = (
    "body.py",
    "checkpoint/",
    "ciphertext.py",
    "envelope.py",
    "flower/",
    "metadata/",
    "receipts.py",
    "release.py",
    "residues.py",
    "running_sum.py",
    "server_round.py",
)
"""What decides which bytes count, what they add up to and what is kept of them."""
_MAX_BYTES = 1 << 24


def digest(package: Path, disk: Disk) -> str:
    """Return SHA-256 over names and bytes of a package's sources; hexadecimal."""
    found = hashlib.sha256(b"fedsecure-code-v1\0")
    for name in disk.listdir(package):
        if name.startswith(PARTS) and name.endswith(".py"):
            data = disk.read(package / name, _MAX_BYTES)
            found.update(f"{len(name)} {name} {len(data)}\n".encode() + data)
    return found.hexdigest()


def own_digest(disk: Disk) -> str:
    """Return that of the code that runs."""
    return digest(Path(__file__).parent.parent, disk)
