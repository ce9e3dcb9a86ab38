"""Signed heads: how long a site's ledger is, said by the site and kept by others.

Who holds a ledger's key can rewrite all of it, and a backup that is put back verifies
too: only what others remember of its head shows that lines are missing (TRUST.md
section 9, C2SP tlog-checkpoint). A head is signed by itself, so whoever passes it on
can hold it back but cannot make one up. Known to both sides; pure.
"""

import logging
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fedsecure.errors import VerificationError
from fedsecure.keys import SigningKey, VerifyKey
from fedsecure.update import JSON

log = logging.getLogger(__name__)

HEADS = "heads"
"""Name of the header field that carries heads, in requests and in answers."""
SEEN = "heads.seen"
"""Action of a ledger line that keeps others' heads."""
ROWS_A_LINE = 16
"""Heads in one ledger line: 230 bytes each, a line's detail has 4 KiB."""
MAX_ROWS = 256
_LABEL = b"fedsecure-head-v1\0"
_FACTS = struct.Struct("<Q32s")
_HASH, _SIGNATURE = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A site's word that its ledger has `seq` lines and ends in `hash`.

    Attributes
    ----------
    site : str
    seq : int
    hash : bytes
        Of the last line; 32 bytes.
    signature : bytes
        The site's own; 64 bytes.
    """

    site: str
    seq: int
    hash: bytes
    signature: bytes

    @classmethod
    def make(cls, site: str, seq: int, digest: bytes, key: SigningKey) -> "SignedHead":
        """Return a head signed by its owner."""
        return cls(site, seq, digest, key.sign(_signed(site, seq, digest)))

    def is_by(self, key: VerifyKey | None) -> bool:
        """Return whether the owner of `key` said it."""
        if key is None:
            return False
        try:
            key.verify(self.signature, _signed(self.site, self.seq, self.hash))
        except VerificationError:
            return False
        return True


class KnownHeads:
    """The longest head known of each site; a shorter one never replaces it.

    Parameters
    ----------
    key : callable
        From a site's name to its key; None: not a site, its heads are passed over.
    """

    def __init__(self, key: Callable[[str], VerifyKey | None]) -> None:
        self._key = key
        self._heads: dict[str, SignedHead] = {}

    def take(self, heads: Iterable[SignedHead]) -> list[SignedHead]:
        """Keep those that are longer than what is known; return them.

        One that its site did not sign is passed over: it may be from before the site
        had its present key.
        """
        rose = []
        for head in heads:
            known = self._heads.get(head.site)
            if known is not None and known.seq >= head.seq:
                continue
            if not head.is_by(self._key(head.site)):
                log.warning("a head said to be of %r is not signed by it", head.site)
                continue
            self._heads[head.site] = head
            rose.append(head)
        return rose

    def longer_than(self, shown: Mapping[str, SignedHead]) -> list[SignedHead]:
        """Return the heads that are longer than the ones shown."""
        return [
            head
            for site, head in self._heads.items()
            if site not in shown or shown[site].seq < head.seq
        ]


def heads_document(heads: Iterable[SignedHead]) -> dict[str, JSON]:
    """Return heads as a header's or a ledger line's plain values."""
    return {h.site: [h.seq, h.hash.hex(), h.signature.hex()] for h in heads}


def read_heads(value: JSON) -> dict[str, SignedHead]:
    """Return the heads that `heads_document` wrote; no signature is checked.

    Raises
    ------
    VerificationError
        Not an object of [seq, hash, signature], or more than `MAX_ROWS` of them.
    """
    if not isinstance(value, Mapping) or len(value) > MAX_ROWS:
        raise VerificationError(
            f"heads of ledgers must be an object of at most {MAX_ROWS} sites"
        )
    return {site: _head(site, row) for site, row in value.items()}


def _head(site: str, row: JSON) -> SignedHead:
    match row:
        case [int(seq), str(digest), str(signature)]:
            sound = _HASH.fullmatch(digest) and _SIGNATURE.fullmatch(signature)
            if sound and not isinstance(seq, bool) and 1 <= seq < 1 << 53:
                numbers = bytes.fromhex(digest), bytes.fromhex(signature)
                return SignedHead(site, seq, *numbers)
    raise VerificationError(
        f"head of {site!r} is not [seq, SHA-256, signature] in lower hexadecimal"
    )


def _signed(site: str, seq: int, digest: bytes) -> bytes:
    return _LABEL + _FACTS.pack(seq, digest) + site.encode()
