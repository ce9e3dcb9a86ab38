"""The authority's own folder, ``OUT/ca``: its keys, opened for one provisioning.

``roster.key`` signs rosters and is the federation's root of trust; ``root.key`` signs
issuing authorities and may be kept on other media until the next one is due;
``issuing.pem`` signs certificates. All are encrypted if there is a passphrase. The
folder belongs on an offline machine and in no kit.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedsecure.disk import SystemDisk
from fedsecure.errors import KitError, NotFound
from fedsecure.keys import SigningKey
from fedsecure.provision.ca import (
    LEAF_DAYS,
    Authority,
    common_name,
    days_left,
    lock_seed,
    make_authority,
    make_issuing,
    read_authority,
    unlock_seed,
)

_SMALL = 1 << 16


@dataclass(frozen=True, slots=True)
class Office:
    """What signs: never printed, never kept longer than a provisioning.

    Attributes
    ----------
    roster_key : SigningKey
    issuing : Authority
    root : bytes
        The root's certificate, PEM: every kit's ``ca.crt``.
    """

    roster_key: SigningKey
    issuing: Authority
    root: bytes


def open_office(
    out: Path, name: str | None, now: datetime, passphrase: bytes | None
) -> Office:
    """Open a federation's authority, or make it where nothing was provisioned yet.

    Parameters
    ----------
    name : str or None
        The federation's name; None: whichever is there, none is made.

    Raises
    ------
    KitError
        Missing although kits exist, incomplete, of another federation, readable by
        others, or shut to this passphrase.
    """
    folder = out / "ca"
    if not folder.is_dir():
        if (out / "roster.json").exists() or any(out.glob("*/kit.json")):
            raise KitError(
                f"{folder} is missing although {out} holds kits: bring the authority's "
                "folder back, or choose an empty folder for a new federation"
            )
        if name is None:
            raise KitError(
                f"{out} holds no federation: run `fedsecure provision` first"
            )
        _found(out, name, now, passphrase)
    _refuse_open(folder)
    root = _read(folder, "ca.crt")
    key = unlock_seed(_read(folder, "roster.key"), passphrase)
    pem = _read(folder, "issuing.pem")
    issuing = read_authority(pem, pem, passphrase)
    found = common_name(issuing.certificate.issuer).removesuffix(" root")
    if name not in (None, found):
        raise KitError(
            f"{out} belongs to the federation {found!r}, the description is of "
            f"{name!r}: choose another folder"
        )
    if days_left(pem, now) < LEAF_DAYS:
        issuing = _renew_issuing(folder, found, now, passphrase)
    return Office(key, issuing, root)


def _found(out: Path, name: str, now: datetime, passphrase: bytes | None) -> None:
    """Make the folder beside its place and move it there, whole or not at all."""
    building, disk = out / ".ca", SystemDisk()
    shutil.rmtree(building, ignore_errors=True)
    root = make_authority(name, now)
    certificate, key = root.pem(passphrase)
    issuing = make_issuing(root, name, now).pem(passphrase)
    disk.write_once(building / "ca.crt", certificate)
    disk.write_once(building / "root.key", key)
    disk.write_once(building / "issuing.pem", b"".join(issuing))
    disk.write_once(
        building / "roster.key", lock_seed(SigningKey.generate(), passphrase)
    )
    building.rename(out / "ca")


def _renew_issuing(
    folder: Path, name: str, now: datetime, passphrase: bytes | None
) -> Authority:
    root = read_authority(
        _read(folder, "ca.crt"), _read(folder, "root.key"), passphrase
    )
    issuing = make_issuing(root, name, now)
    temporary = folder / ".issuing.pem"
    temporary.unlink(missing_ok=True)
    SystemDisk().write_once(temporary, b"".join(issuing.pem(passphrase)))
    temporary.replace(folder / "issuing.pem")
    return issuing


def _read(folder: Path, name: str) -> bytes:
    try:
        return SystemDisk().read(folder / name, _SMALL)
    except NotFound as missing:
        raise KitError(
            f"{folder / name} is missing: bring the authority's key back from where it "
            "is kept"
        ) from missing


def _refuse_open(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        if path.stat().st_mode & 0o077:
            raise KitError(f"{path} can be read by others: chmod go-rwx {path}")


def read_passphrase(path: Path) -> bytes:
    """Return the passphrase in a file: its first line, without the line's end.

    Raises
    ------
    KitError
        Missing, empty, or readable by others.
    """
    try:
        line = SystemDisk().read(path, _SMALL).split(b"\n", 1)[0].rstrip(b"\r")
    except NotFound as missing:
        raise KitError(f"{path} is missing: it must hold the passphrase") from missing
    if path.stat().st_mode & 0o077:
        raise KitError(f"{path} can be read by others: chmod 600 {path}")
    if not line:
        raise KitError(f"{path}: the first line is empty, it must be the passphrase")
    return line


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
