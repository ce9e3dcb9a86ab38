"""The manifests of a run on its stores: what one aggregator writes, all of them read.

A number may hold a dead writer's orphan; only a head says what was committed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fedsecure.checkpoint.manifest import (
    MAX_BYTES,
    Manifest,
    Unread,
    read_manifest,
)
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.clock import Clock
from fedsecure.envelope import Scope
from fedsecure.errors import StorageError, VerificationError
from fedsecure.keys import SigningKey, VerifyKey
from fedsecure.metadata import Head

T = TypeVar("T")


class Book:
    """Reads manifests and writes new ones, each on W of N stores.

    Parameters
    ----------
    replicas : Replicas
    name, signing : str, SigningKey
        This aggregator.
    keys : mapping of str to VerifyKey
        Signing keys of all aggregators, revoked ones too.
    clock : Clock
    app : str
        Digest of our code; see `Manifest`.
    rosters : Rosters, optional
        What new manifests name and stored ones are compared with; without, neither.
    """

    def __init__(
        self,
        replicas: Replicas,
        name: str,
        signing: SigningKey,
        keys: Mapping[str, VerifyKey],
        clock: Clock,
        app: str = "",
        rosters: Rosters | None = None,
    ) -> None:
        self._replicas = replicas
        self._name, self._signing, self._keys = name, signing, keys
        self._clock, self._app, self._rosters = clock, app, rosters

    def sequences(self, run: str) -> list[int]:
        """Return the numbers that any store has; committed or not."""
        names = (k.rsplit("/", 1)[1] for k in self._replicas.keys(f"manifest/{run}/"))
        return [int(name) for name in names if name.isdecimal()]

    def said(self, scope: Scope) -> dict[str, Any]:
        """Return what a manifest says of its run's conditions and of its writer."""
        return {
            "key_id": scope.key_id.hex(),
            "plan": scope.plan.hex(),
            "layout": scope.layout.hex(),
            "app": self._app,
            "time": self._clock.wall().isoformat(timespec="milliseconds"),
            "writer": self._name,
        }

    def write(self, manifest: Manifest) -> Manifest:
        """Name our roster in a manifest, sign it, put it on W of N stores; return it.

        Raises
        ------
        NotEnoughReplicas
            Fewer than W hold it.
        """
        if self._rosters is not None:
            manifest = self._rosters.named_in(manifest)
        key = key_of(manifest.run, manifest.sequence)
        self._replicas.put(key, manifest.signed(self._signing))
        return manifest

    def committed(self, head: Head) -> Manifest:
        """Return the manifest a head names.

        Raises
        ------
        NotFound, VerificationError, StorageError
            No store gives the one that was committed.
        ConfigurationError
            None does, and one says that it was made under a newer roster than ours, by
            somebody we do not know yet.
        """
        unknown: list[Unread] = []

        def named(manifest: Manifest) -> None:
            if manifest.digest() != head.manifest:
                raise VerificationError("not the manifest that was committed")

        try:
            return self.found(head.run, head.sequence, named, unknown.append)[1]
        except (VerificationError, StorageError):
            # Only now: one bad store must not stop who finds a good copy elsewhere.
            key = key_of(head.run, head.sequence)
            for unread in unknown:
                if self._rosters is not None:
                    self._rosters.require_unread(key, unread)
            raise

    def require(self, manifest: Manifest) -> None:
        """Return only if our roster lets a run go on from here; see `Rosters`."""
        if self._rosters is not None:
            self._rosters.require(manifest)

    def require_adoptable(self, manifest: Manifest) -> None:
        """Return only if a manifest that nobody committed may be.

        Raises
        ------
        VerificationError
            By an aggregator that was revoked since: sites would refuse its release.
        ConfigurationError
            Ours is not the roster to go on with; see `Rosters.compare`.
        """
        if self._rosters is None:
            return
        if not self._rosters.lives(manifest.writer):
            raise VerificationError(f"it is by {manifest.writer}, who is revoked")
        self._rosters.compare(manifest)

    def found(
        self,
        run: str,
        sequence: int,
        check: Callable[[Manifest], object],
        unknown: Callable[[Unread], object] = lambda _: None,
    ) -> tuple[bytes, Manifest]:
        """Return the first copy under a number that passes a check, and its manifest.

        Parameters
        ----------
        check : callable
            Manifest -> anything; `VerificationError` passes a copy over.
        unknown : callable
            Told of each copy that no aggregator we know has signed.

        Raises
        ------
        NotFound, VerificationError, StorageError
            No copy; none that passes; a store that could not be asked may have one.
        """

        def read(stored: bytes) -> tuple[bytes, Manifest]:
            try:
                manifest = read_manifest(stored, self._keys)
            except Unread as unread:
                unknown(unread)
                raise
            check(manifest)
            return stored, manifest

        return self._replicas.get(key_of(run, sequence), MAX_BYTES, read)


def key_of(run: str, sequence: int) -> str:
    """Return where a run's manifest of a number lies."""
    return f"manifest/{run}/{sequence:08d}"
