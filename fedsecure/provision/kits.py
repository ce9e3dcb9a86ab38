"""One start-up kit per member, made offline; again with one more member changes no other.

Layout of OUT: ``ca/`` (the authority, stays here), ``roster.json`` (the newest roster),
and a folder a member. A kit keeps the roster it was made with; a newer one goes beside
it into ``roster.d/``, so adding a site touches no byte of an existing kit.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedsecure.access.policy import LABEL
from fedsecure.access.roster import (
    MAX_BYTES,
    Member,
    Role,
    Roster,
    federation_id,
    read_roster,
)
from fedsecure.errors import ConfigurationError
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.provision.ca import (
    Authority,
    issue,
    make_authority,
    make_supernode_key,
    read_authority,
)

ROSTER_DAYS = 366  # handed out by hand: longer than the 24 h of a roster on line
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,14}")
_GROUPS = {
    "aggregators": (Role.AGGREGATOR, {"name", "host", "port", "organisation"}),
    "sites": (Role.SITE, {"name", "organisation"}),
    "operators": (Role.OPERATOR, {"name", "organisation"}),
}
_NOTE = """\
# What this site lets a run do; anything else is refused, whatever a server asks. The
# steward reviews and edits it, then signs it again: fedsecure policy sign KIT
"""
_RULES: dict[str, object] = {
    "id": "demo",
    "datasets": ["digits", "breast-cancer", "csv", "object"],
    "schemes": ["bfv"],
    "privacy": {
        "modes": ["none", "example_local"],
        "min_noise_multiplier": 0.3,
        "max_epsilon": 10.0,
        "delta": 1e-5,
        "max_sample_rate": 1.0,
    },
    "update": {"max_bytes": 1_000_000_000, "max_l2_norm": 1000.0},
    "runs": {"max_rounds": 1000},
    "metrics": "plain",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A member as ``federation.yaml`` asks for it."""

    name: str
    role: Role
    organisation: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a provisioning did: the new kits, and the roster that now holds."""

    added: tuple[str, ...]
    roster: Roster


def provision(description: Path, out: Path, now: datetime) -> Provisioned:
    """Make the kits that are missing.

    Raises
    ------
    ConfigurationError
        The description cannot be read or asks for something impossible, or a member
        changed role or address; nothing was made.
    """
    name, wanted = read_description(description)
    root, authority, before = _authority(name, out, now)
    known = {} if before is None else dict(before.members)
    _refuse_changes(known, wanted)
    fresh = [member for member in wanted if member.name not in known]
    if not fresh and before is not None:
        return Provisioned((), before)
    building = out / ".building"
    shutil.rmtree(building, ignore_errors=True)
    federation = federation_id(root.public)
    for member in fresh:
        known[member.name] = _build(building, member, authority, federation, now)
    version = 1 if before is None else before.version + 1
    until = (now + timedelta(days=ROSTER_DAYS)).strftime("%Y-%m-%dT%H:%M:%SZ")
    roster = Roster(federation, version, known, until)
    _publish(out, building, fresh, roster.signed(root))
    return Provisioned(tuple(m.name for m in fresh), roster)


def read_description(path: Path) -> tuple[str, list[Wanted]]:
    """Return a federation's name and members from ``federation.yaml``.

    Raises
    ------
    ConfigurationError
        Not readable, an unknown or missing field, a bad name, or a name twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        fields = YAML(typ="safe", pure=True).load(StringIO(text))
    except (OSError, YAMLError, UnicodeDecodeError) as bad:
        raise ConfigurationError(f"{path} cannot be read: {bad}") from bad
    if not isinstance(fields, dict) or not set(fields) <= {"name", *_GROUPS}:
        raise ConfigurationError(f"{path}: expected name, {', '.join(_GROUPS)}")
    wanted = [
        _wanted(row, *_GROUPS[group], where=f"{path}: {group}")
        for group in _GROUPS
        for row in fields.get(group) or []
    ]
    names = [member.name for member in wanted]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigurationError(f"{path}: members named twice: {', '.join(twice)}")
    for role in (Role.AGGREGATOR, Role.SITE):
        if not any(member.role == role for member in wanted):
            raise ConfigurationError(f"{path}: at least one {role} is needed")
    return _checked_name(str(fields.get("name")), path), wanted


def sign_policy(kit: Path) -> None:
    """Sign a site's ``policy.yaml`` with the steward's key in its kit."""
    key = SigningKey.from_bytes((kit / "steward.key").read_bytes())
    text = (kit / "policy.yaml").read_bytes()
    (kit / "policy.yaml.sig").write_bytes(key.sign(LABEL + text))


def write_policy(
    kit: Path, rules: Sequence[Mapping[str, object]], site: str, now: datetime
) -> None:
    """Write and sign a site's policy: valid a year, these projects, nothing else."""
    until = now.replace(year=now.year + 1, day=1).strftime("%Y-%m-%dT%H:%M:%SZ")
    policy = {
        "format": 1,
        "site": site,
        "valid_until": until,
        "default": "deny",
        "projects": [dict(rule) for rule in rules],
    }
    yaml, text = YAML(typ="safe"), StringIO()
    yaml.default_flow_style = False
    yaml.dump(policy, text)
    _write(kit / "policy.yaml", (_NOTE + text.getvalue()).encode())
    sign_policy(kit)


def _wanted(row: object, role: Role, fields: set[str], where: str) -> Wanted:
    if not isinstance(row, Mapping) or set(row) != fields:
        raise ConfigurationError(f"{where}: each needs {', '.join(sorted(fields))}")
    name, port = _checked_name(str(row["name"]), where), row.get("port", 0)
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise ConfigurationError(f"{where}: {name}: port={port!r}, must be 1 to 65535")
    host, organisation = str(row.get("host", "")), str(row["organisation"])
    return Wanted(name, role, organisation, host, port)


def _checked_name(name: str, where: object) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{where}: name {name!r}: use a-z, 0-9 and '-', at most 15 characters"
        )
    return name


def _authority(
    name: str, out: Path, now: datetime
) -> tuple[SigningKey, Authority, Roster | None]:
    folder = out / "ca"
    if folder.is_dir():
        root = SigningKey.from_bytes((folder / "roster.key").read_bytes())
        pems = ((folder / n).read_bytes() for n in ("ca.crt", "ca.key"))
        data = (out / "roster.json").read_bytes()[:MAX_BYTES]
        return (
            root,
            read_authority(*pems),
            read_roster(data, federation_id(root.public)),
        )
    root, authority = SigningKey.generate(), make_authority(name, now)
    certificate, key = authority.pem()
    made = out / ".ca"
    shutil.rmtree(made, ignore_errors=True)
    _write(made / "roster.key", root.to_bytes())
    _write(made / "ca.crt", certificate)
    _write(made / "ca.key", key)
    made.rename(folder)
    return root, authority, None


def _refuse_changes(known: Mapping[str, Member], wanted: list[Wanted]) -> None:
    for member in wanted:
        before = known.get(member.name)
        if before is None:
            continue
        address = f"{member.host}:{member.port}" if member.host else ""
        if (before.role, before.address) != (member.role, address):
            raise ConfigurationError(
                f"{member.name} is a {before.role} at {before.address or 'no address'} "
                "in the roster: give a changed member a new name"
            )


def _build(
    building: Path, member: Wanted, authority: Authority, federation: str, now: datetime
) -> Member:
    folder = building / member.name
    signing, box = SigningKey.generate(), BoxKey.generate()
    facts = {
        "format": 1,
        "federation": federation,
        "name": member.name,
        "role": str(member.role),
        "origin": "central",
    }
    _write(folder / "kit.json", json.dumps(facts, indent=1).encode())
    _write(folder / "signing.key", signing.to_bytes())
    _write(folder / "box.key", box.to_bytes())
    _write(folder / "ca.crt", authority.pem()[0])
    supernode, address = "", ""
    if member.role == Role.SITE:
        private, supernode = make_supernode_key()
        _write(folder / "supernode.key", private)
        _write(folder / "supernode.pub", supernode.encode())
        steward = SigningKey.generate()
        _write(folder / "steward.key", steward.to_bytes())
        _write(folder / "steward.pub", steward.public.raw)
        write_policy(folder, [_RULES], member.name, now)
    if member.role == Role.AGGREGATOR:
        urn = f"urn:fedsecure:{federation[:16]}:aggregator:{member.name}"
        certificate, key = issue(authority, [member.host], urn, now)
        _write(folder / "tls.crt", certificate)
        _write(folder / "tls.key", key)
        address = f"{member.host}:{member.port}"
    return Member(
        member.name,
        member.role,
        member.organisation,
        signing.public,
        box.public,
        supernode,
        address,
    )


def _publish(out: Path, building: Path, fresh: list[Wanted], roster: bytes) -> None:
    """Put the roster into each new kit, move the kits in, then the newest roster."""
    for member in fresh:
        _write(building / member.name / "roster.json", roster)
        (building / member.name).rename(out / member.name)
    building.rmdir()
    _write(out / ".roster", roster)
    (out / ".roster").replace(out / "roster.json")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
