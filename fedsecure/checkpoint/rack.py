"""The key-encryption keys an aggregator has: what it seals under, what it opens with.

Usually one. While keys are exchanged it seals under the new one and opens with the old
one too, until `rewrap` has gone over every object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsecure.checkpoint.seal import Head, Sealed, data_key, rewrap, seal, unseal
from fedsecure.errors import VerificationError
from fedsecure.keks import Closes, Kek, Opens
from fedsecure.keys import BoxKey, BoxPublic

ROUND = "round"
"""The name a round's own key goes by; see `roundkey`."""


@dataclass(frozen=True, slots=True)
class Rack:
    """Key-encryption keys by the names they have in objects.

    Attributes
    ----------
    closing : mapping of str to Closes
        Every new object is sealed under each of them.
    opening : mapping of str to Opens
        What this aggregator opens with, in order of preference.
    """

    closing: Mapping[str, Closes]
    opening: Mapping[str, Opens]

    def seal(self, data: bytes, context: bytes, random: bytes) -> Sealed:
        """Return `data` sealed under a new key; see `checkpoint.seal`."""
        return seal(data, self.closing, context, random)

    def open(self, sealed: Sealed, context: bytes) -> bytes:
        """Return the plain stream.

        Raises
        ------
        VerificationError
            Sealed under no key that is here, another context, or any byte changed.
        StorageError
            The key is here, but its keeper could not be asked.
        """
        name = self.fitting(sealed.wraps)
        return unseal(sealed, name, self.opening[name], context)

    def secret(self, head: Head, context: bytes) -> bytes:
        """Return the key of a sealed stream; it errs as `open` does."""
        name = self.fitting(head.wraps)
        return data_key(head, name, self.opening[name], context)

    def rewrapped(self, sealed: Sealed, context: bytes) -> Sealed:
        """Return the same chunks with their key under this rack's closing keys.

        Raises
        ------
        VerificationError, StorageError
            As `open`; the data itself is not read.
        """
        if set(sealed.wraps) == {ROUND}:
            return sealed
        name = self.fitting(sealed.wraps)
        return rewrap(sealed, name, self.opening[name], self.closing, context)

    def current(self, wraps: Mapping[str, bytes]) -> bool:
        """Return whether an object's key lies under the closing keys and no other.

        Under its round's key alone is as good: that goes with the round.
        """
        return set(wraps) in ({ROUND}, set(self.closing))

    def fitting(self, wraps: Mapping[str, bytes]) -> str:
        """Return the name of the key to open with; VerificationError if none fits."""
        for name in self.opening:
            if name in wraps:
                return name
        raise VerificationError(
            f"not sealed to {' or '.join(self.opening)} but under "
            f"{', '.join(sorted(wraps)) or 'nothing'}: name that key as kek, or in "
            "kek_before, in aggregator.json"
        )


def box_rack(name: str, box: BoxKey, boxes: Mapping[str, BoxPublic]) -> Rack:
    """Return the rack of the kits' own keys: sealed to every aggregator's box key."""
    return Rack(boxes, {name: box})


def kek_rack(kek: Kek, before: Sequence[Kek]) -> Rack:
    """Return the rack of one key that all aggregators share, and of earlier ones."""
    return Rack({kek.id: kek}, {each.id: each for each in (kek, *before)})
