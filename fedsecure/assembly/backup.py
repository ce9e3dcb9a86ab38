"""A kit with all its state in one sealed, signed file, and back on another machine.

An aggregator's kit or a site's. A site's rows are not in it, nor are the stores: those
have copies of their own. The privacy ledger never goes back: a restored ledger that is
older than what aggregators have seen is refused at the next request (RESILIENCE S10).
"""

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import MAX_BYTES as ROSTER_BYTES
from fedsecure.access.roster import Role
from fedsecure.assembly.backupfile import (
    MAX_FILE_BYTES,
    is_roster,
    new_file,
    roster_of,
    walk,
)
from fedsecure.assembly.comeback import CONFIG, require_roster
from fedsecure.assembly.filing import (
    INDEX,
    LEDGER,
    Act,
    Filed,
    chosen,
    decide,
    grows,
    whole_lines,
)
from fedsecure.assembly.places import token_kek
from fedsecure.assembly.section import read_section
from fedsecure.checkpoint.sealedfile import Box, Lid, SealedWriter, Wrapped
from fedsecure.clock import Clock, SystemClock
from fedsecure.config import AggregatorConfig
from fedsecure.disk import Disk, LockHeld, SystemDisk
from fedsecure.envelope import canonical
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    KitError,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.keys import BoxKey
from fedsecure.ledger import MAX_LEDGER_BYTES, LedgerHead, verify_ledger
from fedsecure.update import JSON


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself, once all of it was checked.

    Attributes
    ----------
    name, role, federation, time : str
        Whose it is, and when it was begun.
    files : tuple of Filed
    ledger : LedgerHead
        None: it had not written a line yet.
    quiet : bool
        Whether no daemon ran while it was made.
    """

    name: str
    role: str
    federation: str
    time: str
    files: tuple[Filed, ...]
    ledger: LedgerHead | None
    quiet: bool


def create(
    path: Path,
    out: Path,
    lid: Lid | None = None,
    extra: Callable[[Kit], dict[str, bytes]] = lambda _: {},
    clock: Clock | None = None,
) -> Backup:
    """Write a kit's backup; durable on return, or not there at all.

    With a daemon running: the shelf is copied first and the ledger last, both as they
    were read, and the digest of each file is of the bytes that went in.

    Parameters
    ----------
    lid : Passphrase, optional
        None: only the kit's own box key opens it.
    extra : callable
        Kit -> more files by name, such as an export of the journal.

    Raises
    ------
    KitError
        Not a kit.
    AlreadyExists
        There is a file of that name.
    StorageError
        Not written; the kit's token cannot be used.
    """
    disk = SystemDisk()
    kit = read_kit(path.absolute(), disk, lambda p: p.stat().st_mode)
    time = (clock or SystemClock()).wall().isoformat(timespec="seconds")
    if out.exists():
        raise AlreadyExists(f"{out} exists: a backup is never written over")
    cover = lid or _own_lid(kit)
    with _quiet(kit.path, disk) as quiet:
        facts: dict[str, JSON] = {
            "name": kit.name,
            "role": str(kit.role),
            "federation": kit.roster.federation,
            "time": time,
            "quiet": quiet,
        }
        with new_file(out) as file:
            sealed = SealedWriter(file, facts, cover, os.urandom)
            _pack(kit, disk, cast("BinaryIO", sealed), extra(kit))
            sealed.finish(kit.signing)
    return verify(out, cover)


def verify(path: Path, lid: Lid) -> Backup:
    """Open all of a backup and check it; writes nothing.

    Raises
    ------
    VerificationError
        Another key or passphrase, a changed byte, another signer, a missing file.
    LedgerCorrupt
        Its ledger is broken.
    """
    held: dict[str, bytes] = {}

    def keep(filed: Filed, read: Callable[[], bytes]) -> None:
        small = filed.name == LEDGER or is_roster(filed.name)
        if small:
            held[filed.name] = read()

    facts, index = walk(path, lid, keep)
    ledger = None
    roster = roster_of(held, str(facts["federation"]))
    if LEDGER in held:
        key = roster.members[str(facts["name"])].signing
        view = cast("Disk", _Held(held))  # it reads, and nothing else
        records = verify_ledger(Path(LEDGER), view, key)
        last = records[-1]
        ledger = LedgerHead(str(facts["name"]), last.seq, last.hash)
    return Backup(
        str(facts["name"]),
        str(facts["role"]),
        str(facts["federation"]),
        str(facts["time"]),
        index,
        ledger,
        facts.get("quiet") is True,
    )


def restore(
    path: Path, kit: Path, lid: Lid, disk: Disk | None = None
) -> dict[str, Act]:
    """Put a backup back into a folder, which may be empty; a repeat completes it.

    Returns
    -------
    dict of str to Act
        What became of each file.

    Raises
    ------
    VerificationError
        The backup is not good; nothing was written.
    KitError
        A file is there that differs and is no shorter diary, or a checkpoint was made
        under a newer roster than the kit would have; nothing was written.
    StorageError
        A daemon runs there, or the disk fails; a repeat goes on.
    """
    disk = disk or SystemDisk()
    federation = verify(path, lid).federation
    acts: dict[str, Act] = {}
    told: dict[str, bytes] = {}

    def plan(filed: Filed, read: Callable[[], bytes]) -> None:
        acts[filed.name] = decide(filed.name, _read(kit / filed.name, disk), read())
        if filed.name == CONFIG or is_roster(filed.name):
            told[filed.name] = read()

    walk(path, lid, plan)
    refused = sorted(name for name, act in acts.items() if act == Act.REFUSE)
    if refused:
        raise KitError(
            f"{kit} holds other {', '.join(refused[:5])}"
            f"{' and more' if refused[5:] else ''} than the backup: nothing was "
            "written. Restore into an empty folder and compare"
        )
    require_roster(str(kit), federation, told, _rosters_there(kit, disk))
    lock = disk.lock(kit / (LEDGER + ".lock"))
    try:
        _put_back(path, kit, lid, disk, acts)
    finally:
        lock.release()
    return acts


def lid_of(kit: Path, kek_of: Path | None = None) -> Lid:
    """Return what opens a backup that is sealed under a kit's own key.

    Parameters
    ----------
    kek_of : Path, optional
        The ``aggregator.json`` whose key it is, where the kit is lost with its own.

    Raises
    ------
    ConfigurationError, StorageError
        No such file; a token cannot be used.
    """
    if kek_of is None:
        return _own_lid(
            read_kit(kit.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
        )
    config = read_section(AggregatorConfig, kek_of)
    if config is None or config.kek.name == "file":
        raise ConfigurationError(f"{kek_of} names no key in a token as kek")
    nobody = BoxKey.generate()  # the kit's own is inside the backup
    return Wrapped(token_kek(config.kek, kit), Box(nobody.public, nobody))


def _own_lid(kit: Kit) -> Lid:
    """Return a kit's box key, or the token its checkpoints are under."""
    box = Box(kit.box.public, kit.box)
    if kit.role != Role.AGGREGATOR:
        return box
    config = read_section(AggregatorConfig, kit.path / "aggregator.json")
    if config is None or config.kek.name == "file":
        return box
    return Wrapped(token_kek(config.kek, kit.path), box)


def after_restore(backup: Backup) -> str:
    """Return what a person must know once a backup is back."""
    if backup.role != str(Role.SITE):
        return (
            "journal, head and checkpoints are in the engine and the stores: if the "
            "engine was lost too, `fedsecure checkpoint restore --engine`"
        )
    line = 0 if backup.ledger is None else backup.ledger.seq
    return (
        f"its ledger ends at line {line}: if this site answered anything since, the "
        "aggregators keep a signed head of a longer one, and the next request is "
        "refused with the lines that are missing; nothing is trained on then. "
        "`fedsecure ledger verify` shows what is here"
    )


# --- writing --------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet(kit: Path, disk: Disk) -> Iterator[bool]:
    """Hold the ledger's lock if nobody else does, and say which it was."""
    try:
        lock = disk.lock(kit / (LEDGER + ".lock"))
    except LockHeld:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _pack(kit: Kit, disk: Disk, file: BinaryIO, extra: dict[str, bytes]) -> None:
    index: list[JSON] = []
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in chosen({*disk.listdir(kit.path), *extra}):
            data = extra.get(name)
            if data is None:
                data = _read(kit.path / name, disk)
            if data is None:  # the daemon dropped it meanwhile: it is over
                continue
            if grows(name):
                data = whole_lines(data)
            _add(tar, name, data)
            index.append([name, len(data), hashlib.sha256(data).hexdigest()])
        _add(tar, INDEX, canonical({"files": index}))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _read(path: Path, disk: Disk) -> bytes | None:
    try:
        return disk.read(path, MAX_FILE_BYTES)
    except NotFound:
        return None


# --- putting back ---------------------------------------------------------------------


def _rosters_there(kit: Path, disk: Disk) -> dict[str, bytes]:
    """Return the newer rosters that were put there for a kit that comes back."""
    names = (f"roster.d/{name}" for name in disk.listdir(kit / "roster.d"))
    return {name: disk.read(kit / name, ROSTER_BYTES) for name in names}


class _Held:
    """Files in memory, for a reader that takes a disk."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def read(self, path: Path, max_bytes: int) -> bytes:
        data = self._files[str(path)]
        if len(data) > min(max_bytes, MAX_LEDGER_BYTES):
            raise VerificationError(f"{path}: {len(data)} bytes, at most {max_bytes}")
        return data


def _put_back(
    path: Path,
    kit: Path,
    lid: Lid,
    disk: Disk,
    acts: dict[str, Act],
) -> None:
    last: dict[str, bytes] = {}

    def put(filed: Filed, read: Callable[[], bytes]) -> None:
        if filed.name == "kit.json":  # what makes it a kit comes last
            last[filed.name] = read()
        else:
            _put(kit / filed.name, read(), acts[filed.name], disk)

    walk(path, lid, put)
    for name, data in last.items():
        _put(kit / name, data, acts[name], disk)


def _put(path: Path, data: bytes, act: Act, disk: Disk) -> None:
    if act == Act.WRITE:
        disk.write_once(path, data)
    elif act == Act.CONTINUE:
        there = _read(path, disk) or b""
        if not data.startswith(there):
            raise StorageError(f"{path} changed meanwhile: end what writes it")
        disk.append(path, data[len(there) :])
