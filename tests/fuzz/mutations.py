"""Bytes that were valid once: flipped, cut, spliced, doubled, with false lengths.

And JSON documents that were: fields changed, left out, added, of another type. All of
it is drawn by hypothesis, so that what fails is made as small as it gets.
"""

import copy
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError
from fedsecure.trainer import JSON

Draw: TypeAlias = st.DrawFn
Operation: TypeAlias = Callable[[Draw, bytearray, Sequence[bytes]], bytearray]
NUMBERS = (
    *(0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, (1 << 20) + 1),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 53, 1 << 60, 1 << 63, (1 << 64) - 1),
)
"""What a length or a count is changed to: ends of types, and our own bounds."""
MORE_BYTES = 200
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, 1e300, 1 << 20, 1 << 31, 1 << 32),
    *((1 << 53) - 1, 1 << 53, 10**400, float("inf"), float("nan")),
    *("", "x", "00", "zz", "0 0", "\0", "\ud800", "../x", "*", "1e999", "ü" * 300),
    *([], {}, [[]], [None], [[], []], {"": None}, ["x", -1], [["x", 1 << 40]]),
)
"""What a field of a document is changed to."""


def mutated(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return one of the samples after one to three changes, or any bytes at all."""
    return st.one_of(_mutated(tuple(samples)), st.binary(max_size=MORE_BYTES))


def documents(samples: Sequence[JSON]) -> st.SearchStrategy[bytes]:
    """Return one of the documents after changes, as JSON; canonical where it can be."""
    return _documents(tuple(samples)).map(encoded)


def encoded(document: JSON) -> bytes:
    """Return JSON bytes; RFC 8785 if it has a form for this."""
    try:
        return canonical(document)
    except (ConfigurationError, UnicodeError):
        return json.dumps(document).encode()


@st.composite
def _mutated(draw: Draw, samples: Sequence[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        data = draw(st.sampled_from(_OPERATIONS))(draw, data, samples)
    return bytes(data)


def _place(draw: Draw, data: bytes | bytearray) -> int:
    """Return a place in it; near the front more often, where headers are."""
    size = len(data)
    near, far = st.integers(0, min(size, 64)), st.integers(0, size)
    ends = st.sampled_from([0, max(size - 1, 0), size])
    return draw(st.one_of(near, far, ends))


def _span(draw: Draw, data: bytes | bytearray) -> slice:
    start = _place(draw, data)
    return slice(start, start + draw(st.sampled_from([1, 2, 8, 17, 32, 64, 7680])))


def _flip(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    if data:
        data[min(_place(draw, data), len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
    return data


def _cut(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return data[: _place(draw, data)]


def _splice(draw: Draw, data: bytearray, samples: Sequence[bytes]) -> bytearray:
    other = draw(st.sampled_from(samples))
    return data[: _place(draw, data)] + other[_place(draw, other) :]


def _double(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    span = _span(draw, data)
    return data[: span.stop] + data[span] + data[span.stop :]


def _drop(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    del data[_span(draw, data)]
    return data


def _swap(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    span = _span(draw, data)
    size = span.stop - span.start
    data[span], data[span.stop : span.stop + size] = (
        data[span.stop : span.stop + size],
        data[span],
    )
    return data


def _number(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at, size = _place(draw, data), draw(st.sampled_from([1, 2, 4, 8]))
    value = draw(st.sampled_from(NUMBERS)) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, "little")
    return data


def _insert(draw: Draw, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = _place(draw, data)
    return data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at:]


_OPERATIONS: Sequence[Operation] = (
    *(_flip, _cut, _splice, _double, _drop, _swap, _number, _number, _insert),
)


@st.composite
def _documents(draw: Draw, samples: Sequence[JSON]) -> JSON:
    root: list[Any] = [copy.deepcopy(draw(st.sampled_from(samples)))]
    for _ in range(draw(st.integers(1, 2))):
        box, key = draw(st.sampled_from(_places(root)))
        action = draw(st.sampled_from(["set", "set", "drop", "add", "double"]))
        if action == "set" and type(box[key]) is int and draw(st.booleans()):
            box[key] = draw(st.sampled_from(NUMBERS))
        elif action == "set":
            box[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        elif action == "add" and isinstance(box, dict):
            box[draw(st.sampled_from(["", "x", "format", "ü"]))] = 1
        elif box is root:
            continue
        elif action == "drop":
            del box[key]
        elif isinstance(box, list):
            box.append(copy.deepcopy(box[key]))
        else:
            box[key] = copy.deepcopy(draw(st.sampled_from(list(box.values()))))
    found: JSON = root[0]
    return found


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a document, from the outside in."""
    if isinstance(value, dict):
        here: list[tuple[Any, Any]] = [(value, key) for key in value]
    elif isinstance(value, list):
        here = [(value, i) for i in range(len(value))]
    else:
        return []
    return here + [place for box, key in here for place in _places(box[key])]


def framed(head: bytes, body: bytes) -> bytes:
    """Return a document and the bytes behind it as one piece; `unframed` takes both."""
    return struct.pack("<I", len(head)) + head + body


def unframed(data: bytes) -> tuple[bytes, bytes]:
    """Return what `framed` put together."""
    (size,) = struct.unpack_from("<I", data)
    return data[4 : 4 + size], data[4 + size :]


@st.composite
def letters(draw: Draw, samples: Sequence[tuple[JSON, bytes]]) -> bytes:
    """Return one of the samples, its document or its body or both changed."""
    document, body = draw(st.sampled_from(samples))
    head, which = encoded(document), draw(st.integers(0, 3))
    if which != 1:
        head = draw(documents([document]))
    if which in {1, 2}:
        body = draw(_mutated((body, *(b for _, b in samples))))
    return framed(head, body)
