"""An envelope as a Flower message: what is read back, and what is refused."""

import gc
import tracemalloc

import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    RecordDict,
)
from flwr.supercore.task_identity import TaskIdentity  # noqa: TID251 - messages need it

from fedsecure.errors import VerificationError
from fedsecure.flower import records

MAX = 1 << 20


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def carrying(content: RecordDict) -> Message:
    return Message(content=content, dst_node_id=7, message_type=MessageType.TRAIN)


def array(stype: str = records.STYPE, dtype: str = "uint8") -> Message:
    made = Array(dtype=dtype, shape=(3,), stype=stype, data=b"abc")
    return carrying(RecordDict({"fedsecure": ArrayRecord({"envelope": made})}))


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 300])
def test_bytes_come_back(data: bytes) -> None:
    assert records.read(records.message(data, 7, "group"), MAX) == data


def test_message_goes_to_its_node_in_its_group() -> None:
    metadata = records.message(b"abc", 7, "run/3").metadata
    assert (metadata.dst_node_id, metadata.group_id) == (7, "run/3")


def test_reply_carries_bytes_back() -> None:
    asked = records.message(b"abc", 7, "group")
    assert records.read(records.reply(b"answer", asked), MAX) == b"answer"


def test_averaging_a_ciphertext_by_mistake_raises() -> None:
    sent = records.message(b"abc", 7, "group")
    (record,) = sent.content.array_records.values()
    (found,) = record.values()
    with pytest.raises(TypeError):
        found.numpy()


def test_error_message_is_refused() -> None:
    failed = Message(Error(code=3), reply_to=records.message(b"abc", 7, "group"))
    with pytest.raises(VerificationError, match="error 3"):
        records.read(failed, MAX)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"fedsecure": ConfigRecord({})}),
        RecordDict({"fedsecure": ArrayRecord({})}),
        RecordDict({"other": ArrayRecord({})}),
    ],
)
def test_message_without_an_envelope_is_refused(content: RecordDict) -> None:
    with pytest.raises(VerificationError, match="no fedsecure envelope"):
        records.read(carrying(content), MAX)


@pytest.mark.parametrize("change", [{"stype": "numpy.ndarray"}, {"dtype": "float32"}])
def test_array_of_another_kind_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(VerificationError, match="stype"):
        records.read(array(**change), MAX)


def test_message_above_the_limit_is_refused() -> None:
    with pytest.raises(VerificationError, match="4 bytes, at most 3"):
        records.read(records.message(b"abcd", 7, "group"), 3)


def test_only_our_messages_are_ours() -> None:
    assert records.is_ours(records.message(b"abc", 7, "group"))
    assert not records.is_ours(carrying(RecordDict({"arrays": ArrayRecord({})})))


def test_bytes_are_freed_without_waiting_for_the_collector() -> None:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(8):
            received = records.message(bytes(MAX), 7, "group")
            assert records.is_ours(received)
            records.read(received, MAX)
        del received
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < MAX
