"""A message's body as named parts, their sizes listed in the signed header."""

from collections.abc import Mapping, Sequence

from fedsecure.envelope import Verified
from fedsecure.errors import VerificationError
from fedsecure.outgoing import Bytes
from fedsecure.trainer import JSON

MAX_PARTS = 4096


def listing(parts: Sequence[tuple[str, Bytes]]) -> list[JSON]:
    """Return the header's field ``parts``: name and length of each part, in order."""
    return [[name, len(data)] for name, data in parts]


def join(parts: Sequence[tuple[str, Bytes]]) -> bytes:
    """Return the body."""
    return b"".join(data for _, data in parts)


def split(message: Verified) -> list[tuple[str, memoryview]]:
    """Return the named parts of a verified message, in order: views of its body.

    Raises
    ------
    VerificationError
        The listing is not well formed or does not add up to the body's length.
    """
    rows = message.header.get("parts")
    if not isinstance(rows, list) or len(rows) > MAX_PARTS:
        raise VerificationError(f"{message.kind}: field 'parts' must be a short list")
    out, start, body = [], 0, memoryview(message.body)
    for row in rows:
        name, length = _row(row)
        out.append((name, body[start : start + length]))
        start += length
    if start != len(body):
        raise VerificationError(
            f"{message.kind}: parts add up to {start} bytes, body has {len(body)}"
        )
    return out


def one(parts: Sequence[tuple[str, memoryview]], name: str) -> memoryview | None:
    """Return the first part called `name`, or None."""
    return next((data for key, data in parts if key == name), None)


def text(header: Mapping[str, JSON], name: str) -> str:
    """Return a text field of a verified header.

    Raises
    ------
    VerificationError
        Missing, or not a text.
    """
    value = header.get(name)
    if not isinstance(value, str):
        raise VerificationError(f"message field {name!r} is not a text")
    return value


def count(header: Mapping[str, JSON], name: str) -> int:
    """Return a non-negative whole number of a verified header.

    Raises
    ------
    VerificationError
        Missing, negative, or not a whole number.
    """
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise VerificationError(f"message field {name!r} is not a count")
    return value


def _row(row: JSON) -> tuple[str, int]:
    if isinstance(row, list) and len(row) == 2:
        name, length = row
        if isinstance(name, str) and type(length) is int and length >= 0:
            return name, length
    raise VerificationError(f"part {row!r} is not [name, bytes]")
