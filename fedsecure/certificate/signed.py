"""A certificate's file: a body, and a member's signature over its canonical form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fedsecure.access.roster import Member, Roster, read_roster
from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SIGNATURE_BYTES, SigningKey
from fedsecure.update import JSON

MAX_BYTES = 1 << 24
_LABEL = b"fedsecure-certificate-v1\0"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose signature is its issuer's.

    Attributes
    ----------
    body : Mapping
        What it says, see `statement`.
    member : Member
        Who issued it, as the roster inside has it.
    roster : Roster
        Signed by the federation's root.
    """

    body: Mapping[str, JSON]
    member: Member
    roster: Roster


def signed(body: Mapping[str, JSON], key: SigningKey) -> bytes:
    """Return the file: JSON of a body and its signature, for people to read too."""
    signature = key.sign(_LABEL + canonical(body))
    document = {"certificate": body, "signature": signature.hex()}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def read_certificate(data: bytes) -> Certificate:
    """Return a certificate: size, parse, roster, signature.

    Whose federation it is, a reader must compare with what it knows.

    Raises
    ------
    VerificationError
        Too large, not well formed, or not signed by a member of its federation.
    """
    if len(data) > MAX_BYTES:
        size = len(data)
        raise VerificationError(f"certificate of {size} bytes, at most {MAX_BYTES}")
    try:
        document = json.loads(data)
        body, signature = document["certificate"], bytes.fromhex(document["signature"])
        issuer = body["issuer"]
        name, key = str(issuer["name"]), bytes.fromhex(issuer["key"])
        raw, federation = bytes.fromhex(issuer["roster"]), str(issuer["federation"])
        message = _LABEL + canonical(body)
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        ConfigurationError,
    ) as bad:
        raise VerificationError("certificate is not well formed") from bad
    roster = read_roster(raw, federation)
    member = roster.members.get(name)
    if member is None or member.signing.raw != key:
        raise VerificationError(
            f"certificate names issuer {name!r} with a key that roster "
            f"{roster.version} does not have for that member"
        )
    if len(signature) != SIGNATURE_BYTES:
        raise VerificationError(f"certificate's signature has {len(signature)} bytes")
    try:
        member.signing.verify(signature, message)
    except VerificationError as bad:
        raise VerificationError(
            f"certificate was changed after {name!r} signed it, or is not {name!r}'s"
        ) from bad
    return Certificate(body, member, roster)
