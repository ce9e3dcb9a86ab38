"""One stream, several readers: each gets all of it, and nobody waits for the dead."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fedsecure.checkpoint.fanout import Fanout
from fedsecure.checkpoint.patience import Bounds
from fedsecure.errors import StorageError

PIECES = [bytes([n]) * 3 for n in range(20)]


def _run(fan: Fanout, *readers: Callable[[], bytes]) -> list["Future[bytes]"]:
    with ThreadPoolExecutor(len(readers)) as pool:
        futures = [pool.submit(reader) for reader in readers]
        fan.feed(PIECES)
    return futures


def test_each_reader_gets_every_piece_in_order() -> None:
    fan = Fanout(3, 4, 1, Bounds())
    found = _run(fan, *(lambda p=p: b"".join(fan.read(p)) for p in range(3)))
    assert [future.result() for future in found] == [b"".join(PIECES)] * 3


def test_no_piece_is_made_before_its_place_is_free() -> None:
    fan, through, most = Fanout(2, 4, 1, Bounds()), [0, 0], 0

    def source() -> Iterator[bytes]:
        nonlocal most
        for made, piece in enumerate(PIECES):
            most = max(most, made - min(through))
            yield piece

    def reader(place: int) -> None:
        for _ in fan.read(place):
            through[place] += 1

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(reader, place) for place in range(2)]
        fan.feed(source())
    assert [future.exception() for future in done] == [None, None]
    assert most <= 4


def test_a_reader_that_fails_holds_nobody_back() -> None:
    fan = Fanout(2, 4, 1, Bounds())

    def fails() -> bytes:
        for _ in fan.read(0):
            fan.leave(0)
            raise OSError("full")
        return b""

    bad, good = _run(fan, fails, lambda: b"".join(fan.read(1)))
    assert isinstance(bad.exception(), OSError)
    assert good.result() == b"".join(PIECES)


def test_a_reader_that_never_begins_holds_nobody_back() -> None:
    fan = Fanout(2, 4, 1, Bounds())
    fan.leave(0)
    (good,) = _run(fan, lambda: b"".join(fan.read(1)))
    assert good.result() == b"".join(PIECES)


def test_a_source_that_fails_fails_every_reader() -> None:
    fan, ended = Fanout(1, 4, 1, Bounds()), threading.Event()

    def source() -> Iterator[bytes]:
        yield b"1"
        raise ValueError("no more")

    def reader() -> None:
        try:
            for _ in fan.read(0):
                pass
        except StorageError:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(reader)
        with pytest.raises(ValueError, match="no more"):
            fan.feed(source())
    assert ended.is_set()
