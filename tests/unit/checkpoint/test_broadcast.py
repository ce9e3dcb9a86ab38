"""A stream reaches each store, and the whole is joined where it is wanted."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from fedsecure.checkpoint.broadcast import Broadcast, _give_up
from fedsecure.checkpoint.patience import MOST, Bounds, Patience
from fedsecure.disk import SystemDisk
from fedsecure.errors import StorageError, VerificationError
from fedsecure.outgoing import Bytes
from fedsecure.stores import StreamingStore
from fedsecure.stores.local import LocalStore
from tests.fakes.clock import FakeClock
from tests.fakes.hung import HungStore

PIECES = [bytes([n]) * 5 for n in range(10)]
WHOLE = b"".join(PIECES)


def _made(
    *stores: StreamingStore, need: int = 1, joins: bool = False
) -> tuple[Broadcast, Patience]:
    patience = Patience(FakeClock(), Bounds(0.2, 30.0))
    named = [(f"store-{n}", store) for n, store in enumerate(stores, 1)]
    return Broadcast(patience, named, 4, need, joins=joins), patience


def _put(store: StreamingStore, pieces: Iterable[Bytes]) -> None:
    store.put_stream(pieces, lambda: "k")


def _local(folder: Path) -> LocalStore:
    return LocalStore(folder, SystemDisk())


def test_every_store_gets_the_stream(tmp_path: Path) -> None:
    stores = [_local(tmp_path / str(n)) for n in range(3)]
    sent, _ = _made(*stores, need=3)
    sent.send(PIECES, _put)
    assert [call.failed for call in sent.answers(lambda: False)] == [None] * 3
    assert [store.get("k", 100) for store in stores] == [WHOLE] * 3


@pytest.mark.parametrize("streaming", [0, 2])
def test_the_whole_is_joined_meanwhile(tmp_path: Path, streaming: int) -> None:
    stores = [_local(tmp_path / str(n)) for n in range(streaming)]
    sent, _ = _made(*stores, joins=True)
    sent.send(PIECES, _put)
    assert sent.whole() == WHOLE


def test_the_whole_is_not_joined_unasked(tmp_path: Path) -> None:
    sent, _ = _made(_local(tmp_path))
    sent.send(PIECES, _put)
    with pytest.raises(StorageError, match="not asked for"):
        sent.whole()


def test_a_source_that_fails_is_raised_once_no_store_is_at_it(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"1"
        raise VerificationError("no more")

    sent, _ = _made(_local(tmp_path))
    with pytest.raises(VerificationError, match="no more"):
        sent.send(breaks(), _put)
    (call,) = sent.answers(lambda: True)
    assert isinstance(call.failed, StorageError)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_store_that_hangs_is_left_and_the_stream_goes_on(tmp_path: Path) -> None:
    hung, well = HungStore(_local(tmp_path / "1")), _local(tmp_path / "2")
    sent, patience = _made(hung, well)
    sent.send(PIECES, _put)
    answers = [call.over for call in sent.answers(lambda: True)]
    assert sorted(answers) == [False, True]
    assert well.get("k", 100) == WHOLE
    assert patience.stuck("store-1")
    hung.come_back()


def test_a_store_that_is_not_asked_holds_nobody_up(tmp_path: Path) -> None:
    sent, patience = _made(_local(tmp_path / "1"), _local(tmp_path / "2"))
    patience._left["store-1"] = MOST
    sent.send(PIECES, _put)
    failed = {c.name: c.failed for c in sent.answers(lambda: True)}
    assert isinstance(failed["store-1"], StorageError)
    assert failed["store-2"] is None


class Slow(LocalStore):
    """A store whose last step, making all durable, waits until it is told to end."""

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        super().put_stream(pieces, key)
        threading.Event().wait(0.4)


def test_a_slow_disk_is_waited_for_as_long_as_its_object_is_large(
    tmp_path: Path,
) -> None:
    slow = Slow(tmp_path / "1", SystemDisk())
    sent, patience = _made(slow, _local(tmp_path / "2"))
    sent.send(PIECES, _put)
    assert all(call.over for call in sent.answers(lambda: True, 40_000_000))
    assert not patience.stuck("store-1")


def test_a_reader_that_joins_and_stands_still_is_no_store() -> None:
    _give_up([], 1)
