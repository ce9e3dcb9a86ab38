"""A signed envelope as a Flower message, and back.

The bytes travel as one `Array` of an own stype: Flower cuts arrays into chunks of 5 MiB
(`ConfigRecord` bytes it does not), and a foreign stype makes ``.numpy()`` raise, so
that nothing averages ciphertext by mistake (FLOWER.md section 5).
"""

from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict

from fedsecure.errors import VerificationError

STYPE = "fedsecure.envelope"
_RECORD = "fedsecure"
_NAME = "envelope"


def message(data: bytes, node_id: int, group: str, ttl: float | None = None) -> Message:
    """Return a message that carries `data` to one node."""
    return Message(
        content=_content(data),
        dst_node_id=node_id,
        message_type=MessageType.TRAIN,
        ttl=ttl,
        group_id=group,
    )


def reply(data: bytes, to: Message) -> Message:
    """Return the answer to a message."""
    return Message(content=_content(data), reply_to=to)


def read(received: Message, max_bytes: int) -> bytes:
    """Return the bytes a message carries.

    Raises
    ------
    VerificationError
        An error message, no envelope in it, another stype, or too large.
    """
    if received.has_error():
        raise VerificationError(f"Flower answers with error {received.error.code}")
    # Not `.array_records`: its view is in a reference cycle with the record, so that
    # dozens of models would wait in memory for Python's collector.
    record = received.content.get(_RECORD)
    array = record.get(_NAME) if isinstance(record, ArrayRecord) else None
    if array is None:
        raise VerificationError("message carries no fedsecure envelope")
    if array.stype != STYPE or array.dtype != "uint8":
        raise VerificationError(f"array has stype {array.stype!r}, must be {STYPE!r}")
    if len(array.data) > max_bytes:
        raise VerificationError(f"{len(array.data)} bytes, at most {max_bytes}")
    return array.data


def is_ours(received: Message) -> bool:
    """Return whether a message carries an envelope of ours."""
    if not received.has_content():
        return False
    return isinstance(received.content.get(_RECORD), ArrayRecord)


def _content(data: bytes) -> RecordDict:
    array = Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)
    return RecordDict({_RECORD: ArrayRecord({_NAME: array})})
