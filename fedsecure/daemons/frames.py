"""What node daemon and worker say to each other: a JSON head and raw numbers.

The numbers are a whole model: they are sent from where they lie and read where they
arrived. The head is filled up with spaces, so that they lie as numpy likes them.
"""

import json
from collections.abc import Mapping

from fedsecure.errors import VerificationError
from fedsecure.outgoing import Bytes, Outgoing
from fedsecure.shelf import read_layout
from fedsecure.update import JSON, Layout

MAX_BYTES = 1 << 30
_LENGTH_BYTES = 4
_ALIGNED = 8


def read_layout_document(document: JSON) -> Layout:
    """Return the layout a head carries; VerificationError if it is none."""
    return read_layout(json.dumps(document).encode())


def pack(head: Mapping[str, JSON], body: Bytes) -> Outgoing:
    """Return one frame; the body is not copied."""
    text = json.dumps(dict(head)).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNED)
    return Outgoing.of(len(text).to_bytes(_LENGTH_BYTES, "little") + text, body)


def unpack(data: bytes) -> tuple[Mapping[str, JSON], memoryview]:
    """Return head and body of a frame; the body is a view.

    Raises
    ------
    VerificationError
        The frame is cut short, or its head is not a JSON object: the training code that
        runs in a worker may write anything.
    """
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    if start > len(data):
        raise VerificationError("worker frame is cut short")
    try:
        head = json.loads(data[_LENGTH_BYTES:start])
    except (ValueError, RecursionError) as bad:
        raise VerificationError("worker frame has a head that is not JSON") from bad
    if not isinstance(head, dict):
        raise VerificationError("worker frame has no head")
    return head, memoryview(data)[start:]
