"""What aggregators keep of a run: updates while a round is open, releases for good.

Everything is sealed to the aggregators before it reaches a store; a store sees names
and sizes. Updates go once their release is published: a later thief of the run key
finds nothing to open.
"""

import io
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from fedsecure.checkpoint import seal, stream
from fedsecure.checkpoint.book import Book, key_of
from fedsecure.checkpoint.manifest import MAX_BYTES, Manifest
from fedsecure.checkpoint.proof import BodyHash, prove
from fedsecure.checkpoint.rack import Rack, box_rack
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.checkpoint.roundkey import RoundKey, new_key, read_key
from fedsecure.clock import Clock
from fedsecure.disk import Readable
from fedsecure.envelope import read_head
from fedsecure.errors import StorageError, VerificationError
from fedsecure.keys import BoxKey, BoxPublic, SigningKey, VerifyKey
from fedsecure.metadata import Head
from fedsecure.outgoing import Bytes, Outgoing
from fedsecure.release import Release
from fedsecure.update import RoundId

log = logging.getLogger(__name__)

T = TypeVar("T")

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
        Box keys of the aggregators that take part; signing keys of all, revoked ones
        too: what they wrote before still counts.
    clock : Clock
    max_bytes : int
        Largest plain object.
    rack : Rack, optional
        The key-encryption keys; without, those of the kits: `box` and `boxes`.
    app : str
        Digest of our code; see `Manifest`.
    rosters : Rosters, optional
        See `Book`.
    """

    def __init__(  # noqa: PLR0913  (a rack stands for box and boxes)
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
        rack: Rack | None = None,
        app: str = "",
        app_before: Collection[str] = (),
        rosters: Rosters | None = None,
    ) -> None:
        self._replicas = replicas
        self._rack = rack or box_rack(name, box, boxes)
        self._keys = dict(keys)
        self._book = Book(replicas, name, signing, self._keys, clock, app, rosters)
        self._max_bytes = max_bytes
        self._app, self._app_before = app, app_before
        self._digests: dict[bytes, bytes] = {}

    def new_key(self, round_id: RoundId) -> tuple[RoundKey, bytes]:
        """Return a round's key, and the detail of its KEY row."""
        return new_key(round_id, self._rack, os.urandom)

    def read_key(self, detail: bytes, round_id: RoundId) -> RoundKey:
        """Return the round's key that a KEY row keeps; see `roundkey.read_key`."""
        return read_key(detail, round_id, self._rack, os.urandom)

    def keep(self, name: str, data: Bytes, key: RoundKey | None = None) -> None:
        """Seal `data` and put it on W of N stores.

        Sealing is randomised, so a repeat takes the copy of an earlier attempt if it
        opens to the same bytes; two leaders that met may have left both of theirs, each
        on some stores, and any that opens to the same bytes counts.

        Parameters
        ----------
        key : RoundKey, optional
            What it is sealed under; without, under the aggregators' keys.

        Raises
        ------
        NotEnoughReplicas
            Fewer than W stores hold it: it must not be journalled.
        """
        rack = self._rack if key is None else key.rack()

        def same(stored: bytes) -> bytes:
            if self._open(stored, name, rack) != data:
                raise VerificationError(f"{name} opens to other bytes")
            return stored

        try:
            stored = self._replicas.get(name, self._limit, same)
        except (StorageError, VerificationError):
            self._put((data,), len(data), rack, name, name, same)
        else:
            self._replicas.put(name, stored, lambda other: bool(same(other)))

    def reserve(self, update: int) -> None:
        """Return only if an update fits, and then two checkpoints (RESILIENCE 9).

        Called before an update is taken: a round that was begun can be released, and
        the next one's manifest written, on what is left.

        Parameters
        ----------
        update : int
            Bytes of the update; a sum, whose seeds are written out, has up to two
            times as many.

        Raises
        ------
        NotEnoughReplicas
            Fewer than W stores have so much room.
        """
        self._replicas.require_room(update + 2 * (2 * update + MAX_BYTES))

    def read(self, name: str, max_bytes: int, key: RoundKey | None = None) -> Bytes:
        """Return what `keep` kept, from the first store whose copy opens.

        Raises
        ------
        NotFound, VerificationError, StorageError
            No copy; no good one; none that could be asked for.
        """
        limit = max_bytes + _HEAD_MARGIN
        rack = self._rack if key is None else key.rack()
        return self._replicas.open(
            name, limit, lambda file: self._unnamed(file, limit, rack, name)[0]
        )

    def drop(self, name: str) -> None:
        """Delete an object from every store."""
        self._replicas.delete(name)

    def release(
        self,
        data: Bytes | Outgoing,
        release: Release,
        root: bytes,
        term: int,
        previous: Head | None,
        heads: str = "{}",
    ) -> Head:
        """Seal a release envelope, then sign its manifest, each on W of N stores.

        A manifest that an earlier leader left for the same closed set is verified and
        adopted; any other is garbage, and the next number is taken.

        Parameters
        ----------
        data : bytes or Outgoing
            The signed release; its first piece holds at least the envelope's head.
        heads : str
            What is known of the sites' ledgers; see `Manifest`.

        Returns
        -------
        Head
            To be committed by the journal; nothing is released before that.

        Raises
        ------
        NotEnoughReplicas
            Fewer than W stores hold release and manifest.
        ConfigurationError
            A manifest that nobody committed was made under a newer roster than ours.
        """
        run, before = release.round.run, 0 if previous is None else previous.sequence
        taken = [n for n in self._book.sequences(run) if n > before]
        prev = "" if previous is None else previous.manifest.hex()
        for sequence in taken:
            found = self._adopt(run, sequence, release, (root.hex(), prev))
            if found is not None:
                return self._head(found, term)
        outgoing = data if isinstance(data, Outgoing) else Outgoing.of(data)
        name, size = self._put_release(outgoing, release)
        scope = read_head(next(outgoing.pieces(), b""))[0].scope
        manifest = Manifest(
            run=run,
            round=release.round.number,
            sequence=max((before, *taken)) + 1,
            term=term,
            after=release.after,
            prev=prev,
            release=release.digest().hex(),
            root=root.hex(),
            object=name,
            size=size,
            heads=heads,
            **self._book.said(scope),
        )
        return self._head(self._book.write(manifest), term)

    def manifest(self, head: Head) -> Manifest:
        """Return the manifest a head names.

        Raises
        ------
        NotFound, VerificationError, StorageError
            No store gives the one that was committed.
        """
        return self._book.committed(head)

    def require(self, head: Head, plan: bytes) -> None:
        """Return only if a run may go on from a head.

        See `Manifest.require` and `Rosters.require`.
        """
        manifest = self.manifest(head)
        manifest.require(plan.hex(), self._app, self._app_before)
        self._book.require(manifest)

    def read_release(self, head: Head) -> Bytes:
        """Return the release envelope a head's manifest seals: name and tags hold."""
        manifest = self.manifest(head)
        return self._release_file(manifest, lambda f: self._named(f, manifest))

    def digest(self, head: Head) -> bytes:
        """Return the release digest a head stands for; 32 bytes."""
        known = self._digests.get(head.manifest)
        if known is None:
            known = bytes.fromhex(self.manifest(head).release)
            self._digests[head.manifest] = known
        return known

    def verify_release(self, head: Head) -> Release:
        """Restore a release into memory and check it; for drills and doctors."""
        manifest = self.manifest(head)
        return self._release_file(manifest, lambda f: self._verified(f, manifest))

    @property
    def _limit(self) -> int:
        return self._max_bytes + _HEAD_MARGIN

    def _room(self, manifest: Manifest) -> int:
        """Return the most bytes an object may have: other wraps may be longer."""
        return manifest.size + _HEAD_MARGIN

    def _put(
        self,
        pieces: Iterable[Bytes],
        size: int,
        rack: Rack,
        context: str,
        key: str,
        same: Callable[[bytes], object] | None = None,
    ) -> tuple[str, int]:
        """Seal a stream onto the stores; return its key ("": its own name) and size."""
        sealing = stream.Sealing(size, rack.closing, context.encode(), os.urandom(39))
        self._replicas.put_stream(
            sealing.pieces(pieces),
            stream.RING,
            len(sealing),
            lambda: key or sealing.name,
            lambda other: (
                seal.object_name(other) == sealing.name
                if same is None
                else bool(same(bytes(other)))
            ),
        )
        return key or sealing.name, len(sealing)

    def _put_release(self, data: Outgoing, release: Release) -> tuple[str, int]:
        context = release.digest().hex()
        return self._put(data.pieces(), len(data), self._rack, context, "")

    def _open(self, data: Bytes, name: str, rack: Rack) -> Bytes:
        return self._unnamed(io.BytesIO(data), len(data), rack, name)[0]

    def _unnamed(
        self,
        file: Readable,
        limit: int,
        rack: Rack,
        name: str,
        opened: Callable[[memoryview], object] | None = None,
    ) -> tuple[memoryview, str]:
        def secret(head: seal.Head) -> bytes:
            return rack.secret(head, context)

        context = name.encode()
        if opened is None:
            return stream.unseal(file, limit, secret, context)
        return stream.unseal(file, limit, secret, context, opened, keep=False)

    def _release_file(self, manifest: Manifest, read: Callable[[Readable], T]) -> T:
        return self._replicas.open(manifest.object, self._room(manifest), read)

    def _named(
        self,
        file: Readable,
        manifest: Manifest,
        opened: Callable[[memoryview], object] | None = None,
    ) -> memoryview:
        """Return what a manifest's object seals, if it has the name it was given.

        With `opened`, its first chunk, after that was told of all of them.
        """
        room = self._room(manifest)
        data, name = self._unnamed(file, room, self._rack, manifest.release, opened)
        if name != manifest.object or len(data) >= manifest.size:
            raise VerificationError(f"{manifest.object} was changed")
        return data

    def _verified(self, file: Readable, manifest: Manifest) -> Release:
        """Return the release, every digest compared; hashed while it is opened.

        In the memory of a few chunks, however large it is.
        """
        with BodyHash() as body:
            data = self._named(file, manifest, body.update)
        return prove(data, body, self._keys, manifest)

    def _adopt(
        self, run: str, sequence: int, release: Release, tie: tuple[str, str]
    ) -> Manifest | None:
        """Bring an earlier leader's manifest to W copies if it seals the same CLOSE.

        `tie` is the root of the closed set and the digest of the manifest before.
        """
        wanted = (run, release.round.number, sequence, release.digest().hex(), *tie)

        def fitting(m: Manifest) -> None:
            if (m.run, m.round, m.sequence, m.release, m.root, m.prev) != wanted:
                raise VerificationError("it seals another CLOSE")
            self._book.require_adoptable(m)

        def whole(stored: bytes) -> bytes:
            self._verified(io.BytesIO(stored), manifest)
            return stored

        key = key_of(run, sequence)
        try:
            signed, manifest = self._book.found(run, sequence, fitting)
            stored = self._replicas.get(manifest.object, self._room(manifest), whole)
            self._replicas.put(
                manifest.object, stored, lambda other: bool(whole(other))
            )
            self._replicas.put(key, signed)
        except (StorageError, VerificationError) as unfit:
            log.warning("%s is passed over: %s", key, unfit)
            return None
        return manifest

    def _head(self, manifest: Manifest, term: int) -> Head:
        digest = manifest.digest()
        return Head(manifest.run, manifest.round, manifest.sequence, digest, term)
