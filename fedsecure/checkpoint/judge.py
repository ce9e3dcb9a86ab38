"""Is a stored object what its name says? Signature, digest, seal and what is inside."""

from collections.abc import Mapping
from enum import StrEnum

from fedsecure.checkpoint import seal
from fedsecure.checkpoint.copies import Foreign
from fedsecure.checkpoint.manifest import Manifest, read_manifest
from fedsecure.checkpoint.rack import ROUND, Rack, box_rack
from fedsecure.envelope import Kind, Verified, parse, verify
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey, VerifyKey
from fedsecure.release import Release, read_release, root

HEAD_MARGIN = 1 << 20
"""What a sealed object is larger than what was sealed, at most."""


class Family(StrEnum):
    """What a key names."""

    MANIFEST = "manifest"
    RELEASE = "obj"
    BEGIN = "begin"
    UPDATE = "update"
    MARK = "mark"
    OWN = "own"
    FOREIGN = "foreign"


def family(key: str) -> Family:
    """Return what a key names, by its first part."""
    first, _, rest = key.partition("/")
    if key == "federation" or first in {"probe", "rewrap"}:
        return Family.OWN
    if rest and first in {"manifest", "obj", "begin", "update", "mark"}:
        return Family(first)
    return Family.FOREIGN


class Judge:
    """Opens stored objects as one aggregator can, and believes nothing before.

    Parameters
    ----------
    name, box : str, BoxKey
        The aggregator's.
    aggregators, sites : mapping of str to VerifyKey
        Who may have signed manifests and releases; beginnings and updates.
    max_bytes : int
        Largest plain object.
    rack : Rack, optional
        The key-encryption keys; without, the aggregator's box key.
    """

    def __init__(
        self,
        name: str,
        box: BoxKey,
        aggregators: Mapping[str, VerifyKey],
        sites: Mapping[str, VerifyKey],
        max_bytes: int = 1 << 30,
        rack: Rack | None = None,
    ) -> None:
        self.rack = rack or box_rack(name, box, {name: box.public})
        self._aggregators, self._sites = aggregators, sites
        self.max_bytes = max_bytes

    @property
    def limit(self) -> int:
        """Largest stored object."""
        return self.max_bytes + HEAD_MARGIN

    def manifest(self, key: str, stored: bytes, committed: str = "") -> Manifest:
        """Return the manifest under a key.

        Parameters
        ----------
        committed : str
            Digest of the one that was committed under this key; "": any.

        Raises
        ------
        Foreign
            By nobody of this federation, or a dead writer's orphan where another one
            was committed.
        VerificationError
            Changed.
        """
        found = read_manifest(stored, self._aggregators)
        if key != f"manifest/{found.run}/{found.sequence:08d}":
            raise Foreign(f"it is manifest {found.sequence} of run {found.run}")
        if committed and found.digest().hex() != committed:
            raise Foreign(f"{found.writer} wrote it, another one was committed")
        return found

    def release(self, stored: bytes, manifest: Manifest) -> Release:
        """Return the release that a manifest's object seals.

        Raises
        ------
        VerificationError
            Changed, not sealed to this aggregator, or another release.
        """
        self.named(manifest.object, stored)
        data = self._open(stored, manifest.release)
        message = self._verified(data, self._aggregators, Kind.RELEASE)
        release = read_release(message)
        names = (release.digest().hex(), root(release.participants).hex())
        if names != (manifest.release, manifest.root):
            raise VerificationError("the release is not the one its manifest names")
        return release

    def named(self, key: str, stored: bytes) -> None:
        """Return only if stored bytes are those an ``obj/`` key names."""
        if seal.object_name(stored) != key:
            raise VerificationError("its bytes are not those of its name")

    def message(self, key: str, stored: bytes, kind: Kind) -> Verified:
        """Return a site's message, kept under ``begin/`` or ``update/``.

        Raises
        ------
        Foreign
            Of no site of this federation.
        VerificationError
            Changed, not sealed to this aggregator, or of another name.
        """
        message = self._verified(self._open(stored, key), self._sites, kind)
        if message.kind == Kind.BEGIN and key != f"begin/{message.digest.hex()}":
            raise VerificationError("it is not the beginning its name says")
        return message

    def update(self, key: str, stored: bytes) -> object:
        """Return only if an update is well formed, and whole as far as can be told.

        Under its round's key it opens for the round's leader alone, who finds every
        change; one that an earlier version sealed is read as a message.
        """
        sealed = seal.from_bytes(stored)
        if set(sealed.wraps) == {ROUND}:
            return sealed
        return self.message(key, stored, Kind.UPDATE)

    def _open(self, stored: bytes, name: str) -> bytes:
        return self.rack.open(seal.from_bytes(stored), name.encode())

    def _verified(
        self, data: bytes, keys: Mapping[str, VerifyKey], kind: Kind
    ) -> Verified:
        envelope = parse(data, self.max_bytes)
        key = keys.get(envelope.signer)
        if key is None:
            raise Foreign(f"it is signed by {envelope.signer!r}, whom nobody knows")
        return verify(envelope, key, kinds=(kind,))
