"""What aggregators keep of a run: updates while a round is open, releases for good.

Everything is sealed to the aggregators before it reaches a store; a store sees names and
sizes. Updates go once their release is published: a later thief of the run key finds
nothing to open.
"""

import os
from collections.abc import Mapping

from fedsecure.checkpoint import seal
from fedsecure.checkpoint.manifest import MAX_BYTES, Manifest, read_manifest
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.clock import Clock
from fedsecure.envelope import Kind, parse, verify
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey, BoxPublic, SigningKey, VerifyKey
from fedsecure.metadata import Head
from fedsecure.release import Release, read_release

_HEAD_MARGIN = 1 << 20


class Vault:
    """Sealed objects and manifests on replicated stores.

    Parameters
    ----------
    replicas : Replicas
    name : str
        This aggregator.
    signing, box : SigningKey, BoxKey
    boxes, keys : mapping
        Box and signing keys of all aggregators.
    clock : Clock
    max_bytes : int
        Largest plain object.
    """

    def __init__(  # noqa: PLR0913 - an aggregator's keys and those of the others
        self,
        replicas: Replicas,
        name: str,
        signing: SigningKey,
        box: BoxKey,
        boxes: Mapping[str, BoxPublic],
        keys: Mapping[str, VerifyKey],
        clock: Clock,
        *,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._replicas = replicas
        self._name = name
        self._signing = signing
        self._box = box
        self._boxes = boxes
        self._keys = dict(keys)
        self._clock = clock
        self._max_bytes = max_bytes
        self._digests: dict[bytes, bytes] = {}

    def keep(self, name: str, data: bytes) -> None:
        """Seal `data` and put it on W of N stores; a repeat finds the first one."""
        if name in self._replicas.keys(name):
            # Sealing is randomised: the object of an earlier attempt is as good, if it
            # opens to the same bytes; on fewer than W stores it is written again.
            sealed = self._replicas.get(name, self._limit)
            if self._open(sealed, name) == data:
                self._replicas.put(name, sealed)
                return
        self._replicas.put(name, self._seal(data, name))

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return what `keep` kept.

        Raises
        ------
        NotFound, VerificationError
            No copy, or no good one.
        """
        sealed = self._replicas.get(name, max_bytes + _HEAD_MARGIN, self._opens(name))
        return self._open(sealed, name)

    def drop(self, name: str) -> None:
        """Delete an object from every store."""
        self._replicas.delete(name)

    def release(
        self,
        data: bytes,
        release: Release,
        root: bytes,
        term: int,
        previous: Head | None,
    ) -> Head:
        """Seal a release envelope, then sign its manifest, each on W of N stores.

        A manifest that an earlier leader left for the same closed set is verified and
        adopted; any other is garbage, and the next number is taken.

        Returns
        -------
        Head
            To be committed by the journal; nothing is released before that.
        """
        taken = self._sequences(release.round.run)
        found = self._adoptable(release, root, previous, taken)
        if found is not None:
            return self._head(found, term)
        sealed = self._seal(data, release.digest().hex())
        name = seal.object_name(sealed)
        self._replicas.put(name, sealed)
        scope = parse(data, self._max_bytes).scope
        manifest = Manifest(
            run=release.round.run,
            round=release.round.number,
            sequence=max((0 if previous is None else previous.sequence, *taken)) + 1,
            term=term,
            after=release.after,
            prev="" if previous is None else previous.manifest.hex(),
            release=release.digest().hex(),
            root=root.hex(),
            object=name,
            size=len(sealed),
            key_id=scope.key_id.hex(),
            plan=scope.plan.hex(),
            time=self._clock.wall().isoformat(timespec="milliseconds"),
            writer=self._name,
        )
        self._replicas.put(_key(manifest), manifest.signed(self._signing))
        return self._head(manifest, term)

    def manifest(self, head: Head) -> Manifest:
        """Return the manifest a head names.

        Raises
        ------
        VerificationError
            No store has the one that was committed.
        """
        key = f"manifest/{head.run}/{head.sequence:08d}"

        def good(data: bytes) -> bool:
            try:
                return read_manifest(data, self._keys).digest() == head.manifest
            except VerificationError:
                return False

        return read_manifest(self._replicas.get(key, MAX_BYTES, good), self._keys)

    def read_release(self, head: Head) -> bytes:
        """Return the release envelope a head's manifest seals."""
        manifest = self.manifest(head)
        sealed = self._replicas.get(
            manifest.object,
            manifest.size,
            lambda data: seal.object_name(data) == manifest.object,
        )
        return self._open(sealed, manifest.release)

    def digest(self, head: Head) -> bytes:
        """Return the release digest a head stands for; 32 bytes."""
        known = self._digests.get(head.manifest)
        if known is None:
            known = bytes.fromhex(self.manifest(head).release)
            self._digests[head.manifest] = known
        return known

    def verify_release(self, head: Head) -> Release:
        """Restore a release into memory and check it; for drills and doctors."""
        envelope = parse(self.read_release(head), self._max_bytes)
        key = self._keys.get(envelope.signer)
        if key is None:
            raise VerificationError(f"release is signed by {envelope.signer!r}")
        release = read_release(verify(envelope, key, kinds=(Kind.RELEASE,)))
        if release.digest().hex() != self.manifest(head).release:
            raise VerificationError("the release is not the one its manifest names")
        return release

    @property
    def _limit(self) -> int:
        return self._max_bytes + _HEAD_MARGIN

    def _seal(self, data: bytes, name: str) -> bytes:
        sealed = seal.seal(data, self._boxes, name.encode(), os.urandom(39))
        return seal.to_bytes(sealed)

    def _open(self, data: bytes, name: str) -> bytes:
        sealed = seal.from_bytes(data)
        return seal.unseal(sealed, self._name, self._box, name.encode())

    def _opens(self, name: str) -> "Opens":
        return Opens(self, name)

    def _sequences(self, run: str) -> list[int]:
        keys = self._replicas.keys(f"manifest/{run}/")
        return [int(key.rsplit("/", 1)[1]) for key in keys]

    def _adoptable(
        self, release: Release, root: bytes, previous: Head | None, taken: list[int]
    ) -> Manifest | None:
        prev = "" if previous is None else previous.manifest.hex()
        for sequence in taken:
            key = f"manifest/{release.round.run}/{sequence:08d}"
            data = self._replicas.get(key, MAX_BYTES)
            try:
                found = read_manifest(data, self._keys)
            except VerificationError:
                continue
            wanted = (release.round.number, release.digest().hex(), root.hex(), prev)
            if (found.round, found.release, found.root, found.prev) == wanted:
                self._replicas.put(key, data)
                self._replicas.put(
                    found.object, self._replicas.get(found.object, found.size)
                )
                return found
        return None

    def _head(self, manifest: Manifest, term: int) -> Head:
        digest = manifest.digest()
        return Head(manifest.run, manifest.round, manifest.sequence, digest, term)


class Opens:
    """Whether a stored copy opens under its name; tells good copies from bad."""

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault = vault
        self._name = name

    def __call__(self, data: bytes) -> bool:
        """Return True if it opens."""
        try:
            self._vault._open(data, self._name)  # noqa: SLF001 - its own room
        except VerificationError:
            return False
        return True


def _key(manifest: Manifest) -> str:
    return f"manifest/{manifest.run}/{manifest.sequence:08d}"
