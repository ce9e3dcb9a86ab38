"""A backup as a file: written once and whole, read front to back and believed last."""

import contextlib
import hashlib
import json
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from fedsecure.access.roster import Roster, read_roster
from fedsecure.assembly.filing import INDEX, Filed, check_index, check_name
from fedsecure.checkpoint.sealedfile import Lid, SealedReader
from fedsecure.errors import AlreadyExists, NotFound, StorageError, VerificationError
from fedsecure.update import JSON

MAX_FILE_BYTES = 1 << 34
_MAX_INDEX = 1 << 26


@contextlib.contextmanager
def new_file(out: Path) -> Iterator[BinaryIO]:
    """Yield a file that has its name only once all of it is durable.

    Raises
    ------
    AlreadyExists
        There is a file of that name.
    StorageError
        Not written.
    """
    temporary = out.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, out)
        folder = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as exists:
        raise AlreadyExists(f"{out} exists: it is never written over") from exists
    except OSError as failed:
        raise StorageError(f"could not write {out}: {failed.strerror}") from failed
    finally:
        temporary.unlink(missing_ok=True)


def walk(
    path: Path,
    lid: Lid,
    visit: Callable[[Filed, Callable[[], bytes]], None],
) -> tuple[dict[str, JSON], tuple[Filed, ...]]:
    """Go through a backup once and return its facts and index, both checked.

    Parameters
    ----------
    visit : callable
        Told of each file and of what reads it, before the signature was checked.

    Raises
    ------
    VerificationError
        Another key or passphrase, a changed byte, another signer, a missing file.
    """
    found: dict[str, Filed] = {}
    index, rosters = b"", dict[str, bytes]()
    with _opened(path) as file:
        sealed = SealedReader(file, lid)
        facts = dict(sealed.facts)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", sealed), mode="r|") as tar:
                for member in tar:
                    data = _member(tar, member)
                    if member.name == INDEX:
                        index = data
                        continue
                    name = check_name(member.name)
                    digest = hashlib.sha256(data).hexdigest()
                    found[name] = Filed(name, len(data), digest)
                    if is_roster(name):
                        rosters[name] = data
                    visit(found[name], lambda data=data: data)  # type: ignore[misc]
        except tarfile.TarError as bad:
            raise VerificationError(f"{path}: its files cannot be read") from bad
        roster = roster_of(rosters, str(facts.get("federation")))
        member_ = roster.members.get(str(facts.get("name")))
        if member_ is None or str(member_.role) != facts.get("role"):
            raise VerificationError(f"{path} is of nobody in its own roster")
        sealed.finish(member_.signing)
    files = _index(index)
    check_index(files, found)
    return facts, files


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    limit = _MAX_INDEX if member.name == INDEX else MAX_FILE_BYTES
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None or member.size > limit:
        raise VerificationError(f"the backup's {member.name!r} is no plain file")
    return stream.read()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as missing:
        raise NotFound(f"{path}: no such file") from missing


def _index(data: bytes) -> tuple[Filed, ...]:
    try:
        rows = json.loads(data)["files"]
        return tuple(Filed(str(n), int(size), str(d)) for n, size, d in rows)
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise VerificationError("the backup has no index: it was cut off") from bad


def is_roster(name: str) -> bool:
    """Return whether a file of a kit is a roster."""
    return name == "roster.json" or name.startswith("roster.d/")


def roster_of(files: dict[str, bytes], federation: str) -> Roster:
    """Return the newest roster among files, signed by the federation's root.

    Raises
    ------
    VerificationError
        None there, or of another federation.
    """
    found = [read_roster(d, federation) for n, d in files.items() if is_roster(n)]
    if not found:
        raise VerificationError("the backup holds no roster: it is of no kit")
    return max(found, key=lambda roster: roster.version)
