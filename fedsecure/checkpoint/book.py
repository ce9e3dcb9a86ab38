"""The manifests of a run on its stores: what one aggregator writes, all of them read.

A number may hold a dead writer's orphan; only a head says what was committed.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from fedsecure.checkpoint.manifest import MAX_BYTES, Manifest, read_manifest
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.clock import Clock
from fedsecure.envelope import Scope
from fedsecure.errors import VerificationError
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
        Signing keys of all aggregators.
    clock : Clock
    app : str
        Digest of our code; see `Manifest`.
    """

    def __init__(
        self,
        replicas: Replicas,
        name: str,
        signing: SigningKey,
        keys: Mapping[str, VerifyKey],
        clock: Clock,
        app: str = "",
    ) -> None:
        self._replicas = replicas
        self._name, self._signing, self._keys = name, signing, keys
        self._clock, self._app = clock, app

    def sequences(self, run: str) -> list[int]:
        """Return the numbers that any store has; committed or not."""
        names = (k.rsplit("/", 1)[1] for k in self._replicas.keys(f"manifest/{run}/"))
        return [int(name) for name in names if name.isdecimal()]

    def said(self, scope: Scope) -> dict[str, str]:
        """Return what a manifest says of its run's conditions and of its writer."""
        return {
            "key_id": scope.key_id.hex(),
            "plan": scope.plan.hex(),
            "layout": scope.layout.hex(),
            "app": self._app,
            "time": self._clock.wall().isoformat(timespec="milliseconds"),
            "writer": self._name,
        }

    def write(self, manifest: Manifest) -> None:
        """Sign a manifest and put it on W of N stores.

        Raises
        ------
        NotEnoughReplicas
            Fewer than W hold it.
        """
        key = key_of(manifest.run, manifest.sequence)
        self._replicas.put(key, manifest.signed(self._signing))

    def committed(self, head: Head) -> Manifest:
        """Return the manifest a head names.

        Raises
        ------
        NotFound, VerificationError, StorageError
            No store gives the one that was committed.
        """

        def named(manifest: Manifest) -> None:
            if manifest.digest() != head.manifest:
                raise VerificationError("not the manifest that was committed")

        return self.found(head.run, head.sequence, named)[1]

    def found(
        self, run: str, sequence: int, check: Callable[[Manifest], object]
    ) -> tuple[bytes, Manifest]:
        """Return the first copy under a number that passes a check, and its manifest.

        Raises
        ------
        NotFound, VerificationError, StorageError
            No copy; none that passes; a store that could not be asked may have one.
        """

        def read(stored: bytes) -> tuple[bytes, Manifest]:
            manifest = read_manifest(stored, self._keys)
            check(manifest)
            return stored, manifest

        return self._replicas.get(key_of(run, sequence), MAX_BYTES, read)


def key_of(run: str, sequence: int) -> str:
    """Return where a run's manifest of a number lies."""
    return f"manifest/{run}/{sequence:08d}"
