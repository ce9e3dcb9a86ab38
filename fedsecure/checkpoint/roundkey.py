"""The key of one round's updates: destroyed with the round, and every copy with it.

Updates are sealed under it and under nothing else. It lies in the engine's KEY row
alone, sealed under the aggregators' key-encryption keys, and the row goes with the
transaction that ends the round: a copy that a store kept while it was away opens for
nobody.

What an engine leaves behind: SQLite overwrites the row (secure_delete) and keeps older
pages in its log until the next checkpoint; PostgreSQL keeps the dead row until VACUUM,
etcd until its compaction, both in their write-ahead logs and in backups of theirs. Such
a remnant is a key sealed under a key-encryption key: whoever has both, and the copy,
opens the outer seal, and meets the encryption of the scheme below it.
"""

import json
from collections.abc import Callable

from fedsecure.checkpoint.rack import ROUND, Rack
from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.keys import KEY_BYTES, NONCE_BYTES, derive, lock, unlock
from fedsecure.update import RoundId

Random = Callable[[int], bytes]
"""How many bytes -> that many of the system's generator."""
_LABEL = b"fedsecure-round-key-v1\0"
_NAME = b"fedsecure-update-name-v1\0"
_NAME_BYTES = 32


class RoundKey:
    """A key-encryption key that lives for one round.

    Parameters
    ----------
    key : bytes
        32 bytes.
    random : callable
    """

    def __init__(self, key: bytes, random: Random) -> None:
        if len(key) != KEY_BYTES:
            raise VerificationError(f"a round's key of {len(key)} bytes, must be 32")
        self._key, self._random = key, random

    def __repr__(self) -> str:
        return "RoundKey(...)"

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Return a data key under this one; see `keks.Closes`."""
        return lock(self._key, secret, info, self._random(NONCE_BYTES))

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return the data key; see `keks.Opens`."""
        return unlock(self._key, sealed, info)

    def name(self, digest: bytes) -> str:
        """Return where an update of this digest lies under this key.

        Another key gives another name: after an engine was lost the round opens under
        a new one, sites send the same bytes again, and what lies sealed under the lost
        key stands in nobody's way. Who finds the key in the KEY row finds the name.
        """
        return f"update/{derive(self._key, _NAME + digest, _NAME_BYTES).hex()}"

    def rack(self) -> Rack:
        """Return the rack that closes and opens with this key alone."""
        return Rack({ROUND: self}, {ROUND: self})


def new_key(round_id: RoundId, rack: Rack, random: Random) -> tuple[RoundKey, bytes]:
    """Return a fresh key, and the KEY row's detail: the key under the rack's keys."""
    key, info = random(KEY_BYTES), _info(round_id)
    wraps = {name: kek.seal(key, info).hex() for name, kek in rack.closing.items()}
    return RoundKey(key, random), canonical({"wraps": dict(wraps)})


def read_key(detail: bytes, round_id: RoundId, rack: Rack, random: Random) -> RoundKey:
    """Return the key a KEY row keeps.

    Raises
    ------
    VerificationError
        Not well formed, sealed under no key that is here, or of another round.
    StorageError
        The keeper of our key could not be asked.
    """
    try:
        found = json.loads(detail)["wraps"]
        wraps = {str(name): bytes.fromhex(wrap) for name, wrap in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as bad:
        raise VerificationError("journal: KEY is not well formed") from bad
    name = rack.fitting(wraps)
    return RoundKey(rack.opening[name].open(wraps[name], _info(round_id)), random)


def _info(round_id: RoundId) -> bytes:
    return _LABEL + canonical({"run": round_id.run, "round": round_id.number})
