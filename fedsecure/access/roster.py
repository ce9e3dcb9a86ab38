"""Who takes part: a signed, numbered list of members and their public keys.

The federation's id is the SHA-256 of the root's public key, so a roster of another
federation cannot be mistaken for ours. Versions only rise, an expired one is refused
(The Update Framework's rules; TRUST.md section 3). A revocation is the next version.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SIGNATURE_BYTES, BoxPublic, SigningKey, VerifyKey
from fedsecure.update import JSON

FORMAT = 1
MAX_BYTES = 1 << 20
_LABEL = b"fedsecure-roster-v1\0"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


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
        A site's Flower key, public PEM; "" for others.
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
    """All members, as of a version.

    Attributes
    ----------
    federation : str
        SHA-256 of the root's public key, hexadecimal.
    version : int
        From 1; only rises.
    members : mapping of str to Member
        Revoked ones included, so that what they signed before can still be read.
    expires : str
        UTC, RFC 3339; from this second on the roster counts no more. Empty: at once.
    revoked : frozenset of str
        Members that take no part any more.
    """

    federation: str
    version: int
    members: Mapping[str, Member]
    expires: str = ""
    revoked: frozenset[str] = frozenset()

    def member(self, name: str, role: Role) -> Member:
        """Return a member in a role.

        Raises
        ------
        VerificationError
            No such member, in another role, or revoked.
        """
        found = self.members.get(name)
        if name in self.revoked:
            raise VerificationError(f"{name!r} is revoked in roster {self.version}")
        if found is None or found.role != role:
            raise VerificationError(
                f"{name!r} is no {role} in roster {self.version} of this federation"
            )
        return found

    def of(self, role: Role) -> tuple[Member, ...]:
        """Return the members in a role that are not revoked, by name."""
        chosen = (m for m in self.members.values() if m.role == role)
        kept = (m for m in chosen if m.name not in self.revoked)
        return tuple(sorted(kept, key=lambda m: m.name))

    def require_current(self, today: str) -> None:
        """Return only if the roster has not expired.

        Parameters
        ----------
        today : str
            UTC, RFC 3339 with seconds and ``Z``.

        Raises
        ------
        VerificationError
            It has expired.
        """
        if today >= self.expires:
            raise VerificationError(
                f"roster {self.version} expired on {self.expires or 'no date'}, it is "
                f"{today}: run `fedsecure provision` and hand out the new roster.json"
            )

    def require_newer(self, before: "Roster") -> None:
        """Return only if this roster may replace `before`.

        Raises
        ------
        VerificationError
            Another federation's, or its version is not higher.
        """
        if self.federation != before.federation:
            raise VerificationError("roster is of another federation")
        if self.version <= before.version:
            raise VerificationError(
                f"roster {self.version} may not replace roster {before.version}: "
                "versions only rise"
            )

    def aggregator(self, name: str) -> VerifyKey:
        """Return an aggregator's signing key; VerificationError if it is not one."""
        return self.member(name, Role.AGGREGATOR).signing

    def site(self, name: str) -> VerifyKey:
        """Return a site's signing key; VerificationError if it is not one."""
        return self.member(name, Role.SITE).signing

    def box(self, name: str) -> BoxPublic:
        """Return a site's box key; VerificationError if it is not one.

        Also of a revoked site: masks were agreed with it, and must be taken off again.
        Who wraps a secret asks `takes_part` first.
        """
        found = self.members.get(name)
        if found is None or found.role != Role.SITE:
            return self.member(name, Role.SITE).box
        return found.box

    def takes_part(self, name: str) -> bool:
        """Return whether a member is one and was not revoked."""
        return name in self.members and name not in self.revoked

    def digest(self) -> str:
        """Return what a checkpoint names this roster by: SHA-256, hexadecimal.

        Over federation and content, not over the signature: it is the same for every
        kit, and of two rosters of one version it tells which.
        """
        about = bytes.fromhex(self.federation) + self._body()
        return hashlib.sha256(b"fedsecure-roster-digest-v1\0" + about).hexdigest()

    def signed(self, root: SigningKey) -> bytes:
        """Return the stored form: root's public key, signature, canonical JSON."""
        body = self._body()
        return root.public.raw + root.sign(_LABEL + body) + body

    def _body(self) -> bytes:
        return canonical(
            {
                "format": FORMAT,
                "version": self.version,
                "expires": self.expires,
                "members": [_row(m) for m in _by_name(self.members)],
                "revoked": [*sorted(self.revoked)],
            }
        )


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
    roster = _parse(body, federation)
    if roster.version < 1 or not _INSTANT.fullmatch(roster.expires):
        raise VerificationError(
            f"roster {roster.version} expires {roster.expires!r}: not well formed"
        )
    if not roster.revoked <= set(roster.members):
        raise VerificationError("roster revokes somebody who is no member")
    return roster


def _parse(body: bytes, federation: str) -> Roster:
    try:
        fields = json.loads(body)
        if fields["format"] != FORMAT:
            raise VerificationError(f"roster of format {fields['format']!r}")
        members = [_member(row) for row in fields["members"]]
        roster = Roster(
            federation,
            int(fields["version"]),
            {m.name: m for m in members},
            str(fields["expires"]),
            frozenset(fields["revoked"]),
        )
        # One encoding only: an unknown field, a name twice, a number as text and any
        # other order all come back as other bytes.
        same = roster._body() == body  # noqa: SLF001 - the same file
    except (
        ValueError,
        KeyError,
        TypeError,
        OverflowError,  # a version of 1e999
        RecursionError,
        ConfigurationError,
    ) as bad:
        raise VerificationError("roster is not well formed") from bad
    if not same:
        raise VerificationError("roster is not in its one canonical form")
    return roster


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
