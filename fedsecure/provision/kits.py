"""One start-up kit per member, made offline; one member more changes no other kit.

Layout of OUT: ``ca/`` (the authority, stays here), ``roster.json`` (the newest roster)
and a folder a member. A kit keeps the roster it was made with, byte for byte; the newer
one is copied into the ``roster.d/`` of each kit where it is used (`access.kit`).

All new kits and the new roster are built in ``.building``, which becomes ``.ready`` in
one rename. A crash before it leaves nothing; after it, the next call finishes the move.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fedsecure.access.roster import (
    MAX_BYTES,
    Member,
    Role,
    Roster,
    federation_id,
    read_roster,
)
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, NotFound, VerificationError
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.provision.ca import (
    issue,
    issue_person,
    make_supernode_key,
    member_of,
    renew_chain,
)
from fedsecure.provision.description import Wanted, read_description
from fedsecure.provision.office import Office, open_office, sync_folder
from fedsecure.provision.steward import (
    DEMO_RULES,
    make_steward,
    replace_file,
    sign_policy,
    write_policy,
)

__all__ = ["Provisioned", "provision", "renew", "revoke", "sign_policy", "write_policy"]

ROSTER_DAYS = 366  # handed out by hand: longer than the 24 h of a roster on line
_RENEWED_BEFORE = timedelta(days=30)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")  # the inner legs of TRUST.md section 5


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a provisioning did: the new kits, and the roster that now holds."""

    added: tuple[str, ...]
    roster: Roster


def provision(
    description: Path, out: Path, now: datetime, passphrase: bytes | None = None
) -> Provisioned:
    """Make the kits that are missing, and a new roster if one is due.

    Running it again on the same description changes no byte.

    Parameters
    ----------
    now : datetime
        UTC.
    passphrase : bytes, optional
        Encrypts the authority's keys, and opens them later.

    Raises
    ------
    ConfigurationError
        The description cannot be read or asks for something impossible, a member
        changed, left or was revoked, or the authority is not there; no kit was made.
    """
    name, wanted = read_description(description)
    with _opened(out, name, now, passphrase) as (office, before):
        known = {} if before is None else dict(before.members)
        if before is not None:
            _refuse_changes(before, wanted)
        fresh = [member for member in wanted if member.name not in known]
        _refuse_strays(out, fresh)
        due = before is None or before.expires <= _text(now + _RENEWED_BEFORE)
        if before is not None and not fresh and not due:
            return Provisioned((), before)
        building = _empty(out / ".building")
        federation = federation_id(office.roster_key.public)
        for member in fresh:
            folder = building / member.name
            known[member.name] = _build(folder, member, office, federation, now)
        revoked = frozenset[str]() if before is None else before.revoked
        roster = _next(before, federation, known, revoked, now)
        _publish(out, building, fresh, roster.signed(office.roster_key))
        return Provisioned(tuple(m.name for m in fresh), roster)


def revoke(
    name: str, out: Path, now: datetime, passphrase: bytes | None = None
) -> Provisioned:
    """Issue the next roster, in which a member takes no part any more.

    It counts where it is handed out: copy ``roster.json`` into every kit's
    ``roster.d/``, the aggregators' first.

    Raises
    ------
    ConfigurationError
        Nothing was provisioned in `out`, or it has no such member.
    """
    with _opened(out, None, now, passphrase) as (office, before):
        if before is None or name not in before.members:
            raise ConfigurationError(f"{out}: no member {name!r} to revoke")
        if name in before.revoked:
            return Provisioned((), before)
        revoked = before.revoked | {name}
        roster = _next(before, before.federation, before.members, revoked, now)
        building = _empty(out / ".building")
        _publish(out, building, [], roster.signed(office.roster_key))
        return Provisioned((), roster)


def renew(name: str, out: Path, now: datetime, passphrase: bytes | None = None) -> Path:
    """Renew the certificate of one kit; return the file to hand out.

    Its key stays, so no secret travels again: copy the one file into the kit in use.

    Raises
    ------
    ConfigurationError
        No such kit in `out`, a kit without a certificate, or a revoked member.
    """
    with _opened(out, None, now, passphrase) as (office, roster):
        path = out / name / "tls.crt"
        if roster is None or name not in roster.members or not path.is_file():
            raise ConfigurationError(
                f"{path} is not there: only aggregators and operators have a "
                "certificate to renew"
            )
        if name in roster.revoked:
            raise ConfigurationError(f"{name} is revoked in roster {roster.version}")
        old = path.read_bytes()
        role = roster.members[name].role
        if member_of(old) != _urn(roster.federation, role, name):
            raise ConfigurationError(f"{path} is the certificate of {member_of(old)}")
        replace_file(path, renew_chain(office.issuing, old, now))
        return path


@contextlib.contextmanager
def _opened(
    out: Path, name: str | None, now: datetime, passphrase: bytes | None
) -> Iterator[tuple[Office, Roster | None]]:
    """Hold OUT for one change at a time, with what an earlier one left finished."""
    lock = SystemDisk().lock(out / ".lock")
    try:
        _finish(out)
        office = open_office(out, name, now, passphrase)
        yield office, _newest(out, federation_id(office.roster_key.public))
    finally:
        lock.release()


def _newest(out: Path, federation: str) -> Roster | None:
    path = out / "roster.json"
    try:
        return read_roster(SystemDisk().read(path, MAX_BYTES), federation)
    except NotFound:
        kits = sorted(p.parent.name for p in out.glob("*/kit.json"))
        if not kits:
            return None
        raise ConfigurationError(
            f"{path} is missing although there are kits ({', '.join(kits)}): bring the "
            "newest one back, or versions would start again at 1"
        ) from None
    except VerificationError as bad:
        raise ConfigurationError(f"{path}: {bad}") from bad


def _next(
    before: Roster | None,
    federation: str,
    members: Mapping[str, Member],
    revoked: frozenset[str],
    now: datetime,
) -> Roster:
    version = 1 if before is None else before.version + 1
    until = _text(now + timedelta(days=ROSTER_DAYS))
    return Roster(federation, version, members, until, revoked)


def _refuse_changes(before: Roster, wanted: Sequence[Wanted]) -> None:
    asked = {member.name: member for member in wanted}
    for name, member in before.members.items():
        now = asked.get(name)
        if name in before.revoked:
            if now is not None:
                raise ConfigurationError(
                    f"{name} was revoked and stays so: give the member a new name"
                )
        elif now is None:
            raise ConfigurationError(
                f"{member.role} {name} has a kit but is no longer in the description: "
                "put it back, or revoke it first"
            )
        elif (now.role, now.address, now.organisation) != (
            member.role,
            member.address,
            member.organisation,
        ):
            raise ConfigurationError(
                f"{name} is a {member.role} of {member.organisation!r} at "
                f"{member.address or 'no address'} in the roster: give a changed one "
                "a new name"
            )


def _refuse_strays(out: Path, fresh: Sequence[Wanted]) -> None:
    found = [member.name for member in fresh if (out / member.name).exists()]
    if found:
        raise ConfigurationError(
            f"{out} already has {', '.join(found)}, which the roster does not know: "
            "move it away"
        )


def _build(
    folder: Path, member: Wanted, office: Office, federation: str, now: datetime
) -> Member:
    """Write one kit's files, the roster excepted; return its row of the roster."""
    disk, signing, box = SystemDisk(), SigningKey.generate(), BoxKey.generate()
    facts = {
        "format": 1,
        "federation": federation,
        "name": member.name,
        "role": str(member.role),
        "origin": "central",  # its keys were made here, not at the member
    }
    disk.write_once(folder / "kit.json", json.dumps(facts, indent=1).encode())
    disk.write_once(folder / "signing.key", signing.to_bytes())
    disk.write_once(folder / "box.key", box.to_bytes())
    disk.write_once(folder / "ca.crt", office.root)
    supernode = ""
    if member.role == Role.SITE:
        private, supernode = make_supernode_key()
        disk.write_once(folder / "supernode.key", private)
        disk.write_once(folder / "supernode.pub", supernode.encode())
        make_steward(folder)
        write_policy(folder, [DEMO_RULES], member.name, now)
    else:
        urn = _urn(federation, member.role, member.name)
        if member.role == Role.AGGREGATOR:
            names = (member.host, *_LOOPBACK)
            certificate, key = issue(office.issuing, names, urn, now)
        else:
            certificate, key = issue_person(office.issuing, urn, now)
        disk.write_once(folder / "tls.crt", certificate)
        disk.write_once(folder / "tls.key", key)
    return Member(
        member.name,
        member.role,
        member.organisation,
        signing.public,
        box.public,
        supernode,
        member.address,
    )


def _publish(out: Path, building: Path, fresh: Sequence[Wanted], roster: bytes) -> None:
    disk = SystemDisk()
    for member in fresh:
        disk.write_once(building / member.name / "roster.json", roster)
    disk.write_once(building / "roster.json", roster)
    building.rename(out / ".ready")
    sync_folder(out)
    _finish(out)


def _finish(out: Path) -> None:
    """Move what is ready into its place, the roster last; may be repeated."""
    ready = out / ".ready"
    if not ready.is_dir():
        return
    for kit in sorted(path for path in ready.iterdir() if path.is_dir()):
        kit.rename(out / kit.name)
    if (ready / "roster.json").exists():
        (ready / "roster.json").replace(out / "roster.json")
    sync_folder(out)
    ready.rmdir()


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _urn(federation: str, role: Role, name: str) -> str:
    return f"urn:fedsecure:{federation}:{role}:{name}"


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
