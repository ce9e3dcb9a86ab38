"""One run's checkpoints in one file: what a store holds of it, sealed as it is."""

import io
import tarfile
from pathlib import Path

from fedsecure.assembly.backupfile import new_file
from fedsecure.assembly.checkpoints import Desk
from fedsecure.checkpoint.inventory import examiner, manifest_key
from fedsecure.checkpoint.judge import Family, family
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.envelope import Kind
from fedsecure.errors import NotFound, VerificationError


def export_run(desk: Desk, run: str, out: Path) -> tuple[str, ...]:
    """Write a run's beginnings, releases and manifests; return their keys.

    The names in the tar are the stores' keys: unpacked, it is a local store.

    Raises
    ------
    NotFound
        No store has a release of this run.
    VerificationError
        One of them has no good copy on any store, or the chain has a gap.
    ConfigurationError
        One was not made under the roster it names, or not by an aggregator in it.
    AlreadyExists, StorageError
        The file is there; it could not be written.
    """
    inventory = desk.inventory
    chain = inventory.chains.get(run)
    if chain is None or not chain.links:
        known = ", ".join(sorted(inventory.chains)) or "none"
        raise NotFound(f"no store has a release of run {run}; there are: {known}")
    if chain.missing:
        raise VerificationError(f"run {run} has a gap: restore it first")
    rosters = Rosters.of(desk.kit)
    for manifest in chain.links:
        rosters.compare(manifest)
    examine, keys = examiner(inventory), list(_begins(desk, run))
    for manifest in chain.links:
        keys += [manifest.object, manifest_key(manifest)]
    with (
        new_file(out) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for key in keys:
            good = examine(key).good
            if good is None:
                raise VerificationError(f"{key} has no good copy on any store")
            member = tarfile.TarInfo(key)
            member.size, member.mode = len(good), 0o600
            tar.addfile(member, io.BytesIO(good))
    return tuple(keys)


def _begins(desk: Desk, run: str) -> list[str]:
    examine, judge = examiner(desk.inventory), desk.inventory.judge
    found = []
    for key in sorted(k for k in desk.inventory.held if family(k) == Family.BEGIN):
        good = examine(key).good
        if good is None:
            continue
        if judge.message(key, good, Kind.BEGIN).scope.round.run == run:
            found.append(key)
    return found
