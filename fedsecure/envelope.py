"""Signed messages between sites and aggregators: unverified in, verified out.

What is signed begins with a type and a version and covers the header, the scope and the
digest of the body, so that no byte of a message can be read in another meaning. The
scope holds no term: a site's stored bytes stay good under the next leader (RESILIENCE
S2); requests and releases carry their term in the header.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import rfc8785

from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from fedsecure.outgoing import Bytes
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

FORMAT = 1
MAX_HEAD_BYTES = 1 << 20
_SAFE = 1 << 53
_PREFIX = struct.Struct("<4sHI")  # magic, version, length of the head
_MAGIC = b"FSEV"
_LABEL = b"fedsecure-envelope-v1\0"


class Kind(StrEnum):
    """What a message is; signed with it."""

    BEGIN_REQUEST = "begin-request"
    BEGIN = "begin"
    REQUEST = "request"
    UPDATE = "update"
    UNMASK_REQUEST = "unmask-request"
    SHARES = "shares"
    RELEASE = "release"
    OPENED = "opened"
    REFUSAL = "refusal"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a message is about; signed with the payload.

    Attributes
    ----------
    round : RoundId
    site : str
        The site that sends it or is addressed; "*" for a release.
    key_id, layout, plan : bytes
        Id of the run key; digests of layout and plan. Empty before they are known.
    """

    round: RoundId
    site: str
    key_id: bytes
    layout: bytes
    plan: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """All of a message but its body, which it names by length and digest.

    Attributes
    ----------
    kind : str
    scope : Scope
    header : bytes
        Canonical JSON.
    body_bytes : int
    body_sha256 : str
        Hexadecimal.
    signer : str
    signature : bytes
        64 bytes over all of the above; empty while it is not signed.
    """

    kind: str
    scope: Scope
    header: bytes
    body_bytes: int
    body_sha256: str
    signer: str
    signature: bytes

    def digest(self) -> bytes:
        """Return SHA-256 over all that is signed; 32 bytes."""
        return hashlib.sha256(_signed(self)).digest()

    def to_bytes(self) -> bytes:
        """Return the wire form up to the body: prefix, head, signature."""
        head = _fields(self)
        prefix = _PREFIX.pack(_MAGIC, FORMAT, len(head))
        return b"".join((prefix, head, self.signature))


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it travels: nothing in it may be believed before `verify`."""

    kind: str
    scope: Scope
    header: bytes
    body: Bytes
    signer: str
    signature: bytes
    body_sha256: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Hash the body, once: it may be large."""
        found = hashlib.sha256(self.body).hexdigest()
        object.__setattr__(self, "body_sha256", found)

    @property
    def head(self) -> Head:
        """The message without its body."""
        return Head(
            self.kind,
            self.scope,
            self.header,
            len(self.body),
            self.body_sha256,
            self.signer,
            self.signature,
        )

    def digest(self) -> bytes:
        """Return SHA-256 over all that is signed; 32 bytes."""
        return self.head.digest()

    def to_bytes(self) -> bytes:
        """Return the wire form: prefix, head, signature, body."""
        return b"".join((self.head.to_bytes(), self.body))


@dataclass(frozen=True, slots=True)
class Verified:
    """A message whose signature, kind and address were checked by `verify`."""

    kind: Kind
    scope: Scope
    header: Mapping[str, JSON]
    body: Bytes
    signer: str
    digest: bytes

    def require(self, expected: Scope) -> None:
        """Return only if the scope is the expected one, field by field.

        Raises
        ------
        VerificationError
            Names the first field that differs.
        """
        for name in ("round", "site", "key_id", "layout", "plan"):
            ours, theirs = getattr(expected, name), getattr(self.scope, name)
            if ours != theirs:
                raise VerificationError(
                    f"{self.kind} from {self.signer} is for another {name}: "
                    f"{_show(theirs)}, expected {_show(ours)}"
                )


def canonical(value: JSON | Mapping[str, JSON]) -> bytes:
    """Return the one encoding of a JSON value (RFC 8785).

    Raises
    ------
    ConfigurationError
        NaN, an integer beyond 2**53, or a value that is not JSON.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError) as bad:
        raise ConfigurationError(f"not canonical JSON: {bad}") from bad


def sign(
    kind: Kind,
    scope: Scope,
    header: Mapping[str, JSON],
    body: Bytes,
    *,
    signer: str,
    key: SigningKey,
) -> Envelope:
    """Return a signed envelope."""
    bare = Envelope(kind, scope, canonical(header), body, signer, b"")
    # Not made anew: that would hash the body again.
    object.__setattr__(bare, "signature", key.sign(_signed(bare.head)))
    return bare


def sign_head(
    kind: Kind,
    scope: Scope,
    header: Mapping[str, JSON],
    body: tuple[int, str],
    *,
    signer: str,
    key: SigningKey,
) -> Head:
    """Return the signed head of a message whose body lies elsewhere.

    Parameters
    ----------
    body : tuple of (int, str)
        The body's length in bytes and its SHA-256, hexadecimal.
    """
    bare = Head(kind, scope, canonical(header), *body, signer, b"")
    return replace(bare, signature=key.sign(_signed(bare)))


def parse(data: Bytes, max_bytes: int) -> Envelope:
    """Read the wire form; believes nothing in it. The body is not copied.

    Raises
    ------
    VerificationError
        Too large, another format, or not well formed.
    """
    if len(data) > max_bytes:
        raise VerificationError(f"message of {len(data)} bytes, at most {max_bytes}")
    head, start = read_head(data)
    envelope = Envelope(
        head.kind,
        head.scope,
        head.header,
        memoryview(data)[start:].toreadonly(),
        head.signer,
        head.signature,
    )
    if envelope.head != head:
        raise VerificationError(
            "message head is for another body: the body was changed"
        )
    return envelope


def read_head(data: Bytes) -> tuple[Head, int]:
    """Read a message's head, and where its body begins; believes nothing in it.

    Raises
    ------
    VerificationError
        Another format, or not well formed.
    """
    if len(data) < _PREFIX.size + SIGNATURE_BYTES:
        raise VerificationError(f"message of {len(data)} bytes is too short")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC or version != FORMAT:
        raise VerificationError(f"not a message of format {FORMAT}")
    start = _PREFIX.size + length
    if length > MAX_HEAD_BYTES or start + SIGNATURE_BYTES > len(data):
        raise VerificationError(f"message head of {length} bytes does not fit")
    fields = bytes(data[_PREFIX.size : start])
    body = start + SIGNATURE_BYTES
    return _read_fields(fields, bytes(data[start:body])), body


def verify(envelope: Envelope, key: VerifyKey, *, kinds: tuple[Kind, ...]) -> Verified:
    """Return the verified message.

    Raises
    ------
    VerificationError
        Wrong signature, a kind that is not expected here, or a header that is not a
        JSON object in its one encoding: it may be written into journal and ledger.
    """
    head = envelope.head
    header = verify_head(head, key, kinds=kinds)
    return Verified(
        Kind(envelope.kind),
        envelope.scope,
        header,
        envelope.body,
        envelope.signer,
        head.digest(),
    )


def verify_head(
    head: Head, key: VerifyKey, *, kinds: tuple[Kind, ...]
) -> Mapping[str, JSON]:
    """Return the header of a verified head; its body was not looked at.

    Raises
    ------
    VerificationError
        As `verify`.
    """
    key.verify(head.signature, _signed(head))
    if head.kind not in kinds:
        wanted = ", ".join(kinds)
        raise VerificationError(f"message is a {head.kind!r}, expected {wanted}")
    header = _object(head.header)
    if not _is_canonical(header, head.header):
        raise VerificationError("message header is not in canonical form")
    return header


def _fields(head: Head) -> bytes:
    scope = head.scope
    return canonical(
        {
            "kind": str(head.kind),
            "run": scope.round.run,
            "round": scope.round.number,
            "site": scope.site,
            "key_id": scope.key_id.hex(),
            "layout": scope.layout.hex(),
            "plan": scope.plan.hex(),
            "signer": head.signer,
            "header": head.header.decode(),
            "body_bytes": head.body_bytes,
            "body_sha256": head.body_sha256,
        }
    )


def _signed(head: Head) -> bytes:
    return _LABEL + _fields(head)


def _read_fields(data: bytes, signature: bytes) -> Head:
    fields = _object(data)
    try:
        scope = Scope(
            RoundId(_text(fields, "run"), _count(fields, "round")),
            _text(fields, "site"),
            *(bytes.fromhex(_text(fields, n)) for n in ("key_id", "layout", "plan")),
        )
        head = Head(
            _text(fields, "kind"),
            scope,
            _text(fields, "header").encode(),
            _count(fields, "body_bytes"),
            _text(fields, "body_sha256"),
            _text(fields, "signer"),
            signature,
        )
        # One encoding only: what was signed is made again, never taken over.
        same = _fields(head) == data
    except (ValueError, ConfigurationError) as bad:
        raise VerificationError(f"message head is not well formed: {bad}") from bad
    if not same:
        raise VerificationError("message head is not canonical")
    return head


def _is_canonical(value: Mapping[str, JSON], data: bytes) -> bool:
    try:
        return canonical(value) == data
    except ConfigurationError:
        return False


def _number(digits: str) -> int | float:
    # RFC 8785 numbers are doubles, and writes 1e17 as an integer.
    number = int(digits)
    return number if abs(number) < _SAFE else float(number)


def _object(data: bytes) -> Mapping[str, JSON]:
    try:
        value = json.loads(data, parse_int=_number)
    except (ValueError, OverflowError, RecursionError) as bad:
        raise VerificationError("message is not JSON") from bad
    if not isinstance(value, dict):
        raise VerificationError("message is not a JSON object")
    return value


def _text(fields: Mapping[str, JSON], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise VerificationError(f"message field {name!r} is not a text")
    return value


def _count(fields: Mapping[str, JSON], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise VerificationError(f"message field {name!r} is not a count")
    return value


def _show(value: object) -> str:
    return value.hex() or "none" if isinstance(value, bytes) else str(value)
