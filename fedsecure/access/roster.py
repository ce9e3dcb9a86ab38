"""Who takes part: a signed, numbered list of members and their public keys.

The federation's id is the SHA-256 of the root's public key, so a roster of another
federation cannot be mistaken for ours. Versions only rise (TRUST.md section 3).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.keys import SIGNATURE_BYTES, BoxPublic, SigningKey, VerifyKey
from fedsecure.update import JSON

FORMAT = 1
MAX_BYTES = 1 << 20
_LABEL = b"fedsecure-roster-v1\0"


class Role(StrEnum):
    """What a member is."""

    SITE = "site"
    AGGREGATOR = "aggregator"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Member:
    """One member.

    Attributes
    ----------
    name : str
    role : Role
    organisation : str
    signing : VerifyKey
    box : BoxPublic
    supernode : str
        A site's Flower key, OpenSSH form; "" for others.
    address : str
        An aggregator's host and port, as the others reach it; "" for others.
    """

    name: str
    role: Role
    organisation: str
    signing: VerifyKey
    box: BoxPublic
    supernode: str
    address: str


@dataclass(frozen=True, slots=True)
class Roster:
    """All members, as of a version."""

    federation: str
    version: int
    members: Mapping[str, Member]

    def member(self, name: str, role: Role) -> Member:
        """Return a member in a role.

        Raises
        ------
        VerificationError
            No such member, or in another role.
        """
        found = self.members.get(name)
        if found is None or found.role != role:
            raise VerificationError(f"{name!r} is no {role} of this federation")
        return found

    def of(self, role: Role) -> tuple[Member, ...]:
        """Return the members in a role, by name."""
        chosen = (m for m in self.members.values() if m.role == role)
        return tuple(sorted(chosen, key=lambda m: m.name))

    def aggregator(self, name: str) -> VerifyKey:
        """Return an aggregator's signing key; VerificationError if it is not one."""
        return self.member(name, Role.AGGREGATOR).signing

    def site(self, name: str) -> VerifyKey:
        """Return a site's signing key; VerificationError if it is not one."""
        return self.member(name, Role.SITE).signing

    def box(self, name: str) -> BoxPublic:
        """Return a site's box key; VerificationError if it is not one."""
        return self.member(name, Role.SITE).box

    def signed(self, root: SigningKey) -> bytes:
        """Return the stored form: root's public key, signature, canonical JSON."""
        body = canonical(
            {
                "format": FORMAT,
                "version": self.version,
                "members": [_row(m) for m in _by_name(self.members)],
            }
        )
        return root.public.raw + root.sign(_LABEL + body) + body


def read_roster(data: bytes, federation: str) -> Roster:
    """Return the roster of a federation: size, signature, parse, meaning.

    Raises
    ------
    VerificationError
        Too large, of another federation, not signed by its root, or not well formed.
    """
    start = 32 + SIGNATURE_BYTES
    if not start < len(data) <= MAX_BYTES:
        raise VerificationError(f"roster of {len(data)} bytes, at most {MAX_BYTES}")
    root, signature, body = data[:32], data[32:start], data[start:]
    if federation_id(VerifyKey(root)) != federation:
        raise VerificationError("roster is of another federation")
    VerifyKey(root).verify(signature, _LABEL + body)
    try:
        fields = json.loads(body)
        if fields["format"] != FORMAT:
            raise VerificationError(f"roster of format {fields['format']!r}")
        members = [_member(row) for row in fields["members"]]
        version = int(fields["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise VerificationError("roster is not well formed") from bad
    return Roster(federation, version, {m.name: m for m in members})


def newest(rosters: list[Roster]) -> Roster:
    """Return the roster with the highest version.

    Raises
    ------
    VerificationError
        None, or two different ones with that version.
    """
    if not rosters:
        raise VerificationError("no roster at all")
    best = max(rosters, key=lambda r: r.version)
    if any(r.version == best.version and r != best for r in rosters):
        raise VerificationError(f"two different rosters of version {best.version}")
    return best


def federation_id(root: VerifyKey) -> str:
    """Return a federation's id: SHA-256 of its root's public key, hexadecimal."""
    return hashlib.sha256(b"fedsecure-federation-v1\0" + root.raw).hexdigest()


def _by_name(members: Mapping[str, Member]) -> list[Member]:
    return sorted(members.values(), key=lambda m: m.name)


def _row(member: Member) -> JSON:
    return {
        "name": member.name,
        "role": str(member.role),
        "organisation": member.organisation,
        "signing": member.signing.raw.hex(),
        "box": member.box.raw.hex(),
        "supernode": member.supernode,
        "address": member.address,
    }


def _member(row: Mapping[str, str]) -> Member:
    return Member(
        str(row["name"]),
        Role(row["role"]),
        str(row["organisation"]),
        VerifyKey(bytes.fromhex(row["signing"])),
        BoxPublic(bytes.fromhex(row["box"])),
        str(row["supernode"]),
        str(row["address"]),
    )
