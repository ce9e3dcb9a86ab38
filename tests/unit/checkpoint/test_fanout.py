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


def _all(fan: Fanout, place: int) -> bytes:
    return b"".join(fan.read(place))


class Stuck:
    """A reader that takes one piece and stands still until it is let go."""

    def __init__(self, fan: Fanout, place: int) -> None:
        self._fan, self._place = fan, place
        self.go, self.read = threading.Event(), list[bytes]()

    def __call__(self) -> bytes:
        for piece in self._fan.read(self._place):
            self.read.append(bytes(piece))
            self.go.wait(30.0)
        return b"".join(self.read)


def test_a_reader_that_stands_still_is_dropped_where_the_others_suffice() -> None:
    told: list[int] = []
    fan = Fanout(3, 4, 2, Bounds(0.1, 30.0), told.append)
    stuck = Stuck(fan, 0)
    with ThreadPoolExecutor(3) as pool:
        hung = pool.submit(stuck)
        well = [pool.submit(_all, fan, place) for place in (1, 2)]
        fan.feed(PIECES)
        assert told == [0]
        stuck.go.set()
    assert [future.result() for future in well] == [b"".join(PIECES)] * 2
    with pytest.raises(StorageError, match="left behind"):
        hung.result()


def test_what_a_dropped_reader_took_is_never_all() -> None:
    fan = Fanout(2, 4, 1, Bounds(0.1, 30.0))
    stuck = Stuck(fan, 0)
    with ThreadPoolExecutor(2) as pool:
        hung = pool.submit(stuck)
        pool.submit(lambda: list(fan.read(1)))
        fan.feed(PIECES)
        stuck.go.set()
    assert hung.exception() is not None
    assert stuck.read == PIECES[:1]


def test_a_reader_that_is_needed_is_waited_for_longer() -> None:
    told: list[int] = []
    fan = Fanout(2, 4, 2, Bounds(0.05, 30.0), told.append)
    stuck = Stuck(fan, 0)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(stuck)
        well = pool.submit(_all, fan, 1)
        threading.Timer(0.3, stuck.go.set).start()
        fan.feed(PIECES)
    assert told == []
    assert slow.result() == well.result() == b"".join(PIECES)


def test_a_reader_that_is_needed_is_dropped_in_the_end() -> None:
    told: list[int] = []
    fan = Fanout(1, 4, 1, Bounds(0.05, 0.1), told.append)
    stuck = Stuck(fan, 0)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stuck)
        fan.feed(PIECES)
        stuck.go.set()
    assert told == [0]


def test_a_wait_that_nobody_saw_is_held_against_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This process was stopped: its first look after it finds all who were reading."""
    told: list[int] = []
    fan, look = Fanout(2, 4, 1, Bounds(30.0, 60.0), told.append), Fanout._wait
    looks: list[int] = []

    def stopped_once(self: Fanout, linger: float) -> list[int]:
        looks.append(1)
        return [0] if len(looks) == 5 else look(self, linger)

    monkeypatch.setattr(Fanout, "_wait", stopped_once)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(_all, fan, place) for place in (0, 1)]
        fan.feed(PIECES)
    assert told == []
    assert [future.result() for future in both] == [b"".join(PIECES)] * 2


def test_once_all_have_left_no_piece_is_held() -> None:
    fan = Fanout(2, 4, 1, Bounds())
    _run(fan, *(lambda p=p: b"".join(fan.read(p)) for p in range(2)))
    assert fan._held == {}
