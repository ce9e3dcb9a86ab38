"""What node daemon and worker say to each other: a JSON head and raw numbers."""

import json
from collections.abc import Mapping

from fedsecure.errors import VerificationError
from fedsecure.shelf import read_layout
from fedsecure.update import JSON, Layout

MAX_BYTES = 1 << 30


def read_layout_document(document: JSON) -> Layout:
    """Return the layout a head carries; VerificationError if it is none."""
    return read_layout(json.dumps(document).encode())


def pack(head: Mapping[str, JSON], body: bytes) -> bytes:
    """Return one frame."""
    text = json.dumps(dict(head)).encode()
    return len(text).to_bytes(4, "little") + text + body


def unpack(data: bytes) -> tuple[Mapping[str, JSON], bytes]:
    """Return head and body of a frame; VerificationError if it is cut short."""
    length = int.from_bytes(data[:4], "little")
    if length > len(data) - 4:
        raise VerificationError("worker frame is cut short")
    head = json.loads(data[4 : 4 + length])
    if not isinstance(head, dict):
        raise VerificationError("worker frame has no head")
    return head, data[4 + length :]
