"""W of N: what counts as kept, what comes back, and every moment power can be lost."""

import gc
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from fedsecure.checkpoint.patience import MOST, Bounds
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.silence import REST, SLOW
from fedsecure.disk import SystemDisk
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    NotEnoughReplicas,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.outgoing import Bytes
from fedsecure.stores import Store
from fedsecure.stores.local import LocalStore
from fedsecure.stores.memory import MemoryStore
from tests.fakes.clock import FakeClock
from tests.fakes.disk import PowerLost
from tests.fakes.hung import HungStore
from tests.fakes.store import FlakyStore, Power

N, W = 3, 2


@pytest.fixture
def stores() -> list[FlakyStore]:
    power = Power()
    return [FlakyStore(power) for _ in range(N)]


def _replicas(stores: list[FlakyStore], quorum: int = W) -> Replicas:
    return Replicas([(f"store-{i}", s) for i, s in enumerate(stores, 1)], quorum)


def _is(data: bytes) -> Callable[[bytes], bytes]:
    def read(stored: bytes) -> bytes:
        if stored != data:
            raise VerificationError("changed")
        return stored

    return read


def _as_it_is(stored: bytes) -> bytes:
    return stored


@pytest.mark.parametrize("quorum", [0, -1, 4])
def test_quorum_outside_one_to_n_is_refused(
    stores: list[FlakyStore], quorum: int
) -> None:
    with pytest.raises(ConfigurationError, match=f"store.quorum={quorum}"):
        _replicas(stores, quorum)


def test_no_stores_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        _replicas([], 1)


# --- put ------------------------------------------------------------------------------


def test_put_reaches_every_store(stores: list[FlakyStore]) -> None:
    _replicas(stores).put("k", b"v")
    assert [s.objects for s in stores] == [{"k": b"v"}] * N


@pytest.mark.parametrize("down", range(N))
def test_one_store_down_does_not_stop_a_put(
    stores: list[FlakyStore], down: int, caplog: pytest.LogCaptureFixture
) -> None:
    stores[down].down = True
    with caplog.at_level(logging.WARNING):
        _replicas(stores).put("k", b"v")
    assert f"store-{down + 1}" in caplog.text


def test_fewer_than_w_stores_are_not_enough(stores: list[FlakyStore]) -> None:
    stores[0].down = stores[2].down = True
    with pytest.raises(NotEnoughReplicas, match=r"1 of 3 .* 2 must: store-1.*store-3"):
        _replicas(stores).put("k", b"v")


def test_repeat_of_equal_bytes_is_no_error(stores: list[FlakyStore]) -> None:
    replicas = _replicas(stores)
    replicas.put("k", b"v")
    replicas.put("k", b"v")
    assert replicas.get("k", 1, _as_it_is) == b"v"


def test_repeat_fills_the_store_that_was_down(stores: list[FlakyStore]) -> None:
    stores[1].down = True
    _replicas(stores).put("k", b"v")
    stores[1].down = False
    _replicas(stores).put("k", b"v")
    assert stores[1].objects == {"k": b"v"}


@pytest.mark.parametrize("other", [b"w", b"", b"longer than v"])
def test_other_bytes_under_the_key_are_refused_and_kept(
    stores: list[FlakyStore], other: bytes
) -> None:
    _replicas(stores).put("k", other)
    with pytest.raises(StorageError, match="other bytes"):
        _replicas(stores).put("k", b"v")
    assert [s.objects["k"] for s in stores] == [other] * N


def test_one_copy_gone_bad_does_not_stop_a_repeat(stores: list[FlakyStore]) -> None:
    _replicas(stores).put("k", b"v")
    stores[0].flip("k")
    _replicas(stores).put("k", b"v")
    assert stores[0].objects["k"] != b"v"


def test_two_writers_of_one_key_do_not_both_succeed(stores: list[FlakyStore]) -> None:
    _replicas(stores[:2]).put("k", b"first")
    with pytest.raises(NotEnoughReplicas):
        _replicas(stores).put("k", b"second")


@pytest.mark.parametrize("step", range(1, N + 1))
def test_power_cut_in_a_put_is_healed_by_the_repeat(
    stores: list[FlakyStore], step: int
) -> None:
    for store in stores:
        store.power.dies_at = step
    with pytest.raises(PowerLost):
        _replicas(stores).put("k", b"v")
    assert sum("k" in s.objects for s in stores) == step - 1
    for store in stores:
        store.power = Power()
    _replicas(stores).put("k", b"v")
    assert [s.objects for s in stores] == [{"k": b"v"}] * N


@pytest.mark.parametrize("lost", range(N))
@pytest.mark.parametrize("down", [None, *range(N)])
def test_what_was_acknowledged_survives_the_loss_of_any_one_store(
    stores: list[FlakyStore], lost: int, down: int | None
) -> None:
    # W = N - 1: one store was down at the put, and any one is lost later.
    if down is not None:
        stores[down].down = True
    _replicas(stores).put("k", b"v")
    for store in stores:
        store.down = False
    stores[lost].objects.clear()
    assert _replicas(stores).get("k", 1, _as_it_is) == b"v"


# --- put_stream -----------------------------------------------------------------------

PIECES = [bytes([n]) * 5 for n in range(10)]
WHOLE = b"".join(PIECES)


class FullStore(LocalStore):
    """A local store whose disk fills up after two pieces."""

    def put_stream(self, pieces: Iterable[Bytes], key: Callable[[], str]) -> None:
        for number, _ in enumerate(pieces):
            if number == 1:
                raise StorageError("No space left on device")


def _local(folder: Path, made: type[LocalStore] = LocalStore) -> LocalStore:
    return made(folder, SystemDisk())


def _stream(stores: Sequence[Store], key: str = "k", quorum: int = W) -> None:
    replicas = Replicas([(str(i), s) for i, s in enumerate(stores)], quorum)
    replicas.put_stream(iter(PIECES), 4, 100, lambda: key, lambda other: other == WHOLE)


def test_a_stream_reaches_every_store_whether_it_takes_pieces_or_not(
    tmp_path: Path,
) -> None:
    local, other = (_local(tmp_path / name) for name in "12")
    stores: list[Store] = [local, MemoryStore(), other, MemoryStore()]
    _stream(stores, quorum=4)
    assert [store.get("k", 100) for store in stores] == [WHOLE] * 4


def test_a_store_that_fills_up_meanwhile_does_not_stop_a_stream(
    tmp_path: Path,
) -> None:
    full = _local(tmp_path / "1", FullStore)
    stores = [full, _local(tmp_path / "2"), _local(tmp_path / "3")]
    _stream(stores)
    assert stores[1].get("k", 100) == stores[2].get("k", 100) == WHOLE


def test_a_stream_that_too_few_stores_hold_is_refused(tmp_path: Path) -> None:
    stores = [_local(tmp_path / str(n), FullStore) for n in range(2)]
    with pytest.raises(NotEnoughReplicas, match="No space left"):
        _stream([*stores, _local(tmp_path / "3")])


def test_a_stream_that_was_written_before_counts(tmp_path: Path) -> None:
    stores = [_local(tmp_path / str(n)) for n in range(3)]
    _stream(stores, quorum=3)
    _stream(stores, quorum=3)


def test_other_bytes_under_a_streams_key_do_not_count(tmp_path: Path) -> None:
    stores = [_local(tmp_path / str(n)) for n in range(3)]
    for store in stores[:2]:
        store.put("k", b"theirs")
    with pytest.raises(NotEnoughReplicas, match="1 of 3"):
        _stream(stores)
    assert stores[0].get("k", 100) == b"theirs"


def test_a_copy_gone_bad_under_a_streams_key_is_no_copy_and_stops_nobody(
    tmp_path: Path,
) -> None:
    def same(other: Bytes) -> bool:
        if other != WHOLE:
            raise VerificationError("a sealed chunk was changed")
        return True

    stores = [_local(tmp_path / str(n)) for n in range(3)]
    stores[0].put("k", b"gone bad")
    replicas = Replicas([(str(i), s) for i, s in enumerate(stores)], W)
    replicas.put_stream(iter(PIECES), 4, 100, lambda: "k", same)
    assert [s.get("k", 100) for s in stores] == [b"gone bad", WHOLE, WHOLE]


def test_a_copy_larger_than_any_under_a_streams_key_stops_nobody(
    tmp_path: Path,
) -> None:
    stores = [_local(tmp_path / str(n)) for n in range(3)]
    stores[0].put("k", bytes(101))
    _stream(stores)
    assert stores[1].get("k", 100) == WHOLE


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"1"
        raise VerificationError("no more")

    replicas = Replicas([("1", _local(tmp_path / "1"))], 1)
    with pytest.raises(VerificationError, match="no more"):
        replicas.put_stream(breaks(), 4, 100, lambda: "k", lambda _: True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- room -----------------------------------------------------------------------------


class SmallStore(LocalStore):
    """A local store with a hundred bytes left."""

    def room(self) -> int | None:
        return 100


class SilentStore(LocalStore):
    """A local store that cannot be asked."""

    def room(self) -> int | None:
        raise StorageError("gone")


def test_stores_that_cannot_tell_their_room_have_it(stores: list[FlakyStore]) -> None:
    _replicas(stores).require_room(1 << 60)


def test_room_on_w_stores_is_enough(tmp_path: Path) -> None:
    stores: list[Store] = [_local(tmp_path, SmallStore), FlakyStore(), FlakyStore()]
    Replicas([(str(n), s) for n, s in enumerate(stores)], W).require_room(101)


def test_room_on_fewer_stores_is_refused_with_need_and_free(tmp_path: Path) -> None:
    stores: list[Store] = [
        _local(tmp_path, SmallStore),
        _local(tmp_path, SilentStore),
        FlakyStore(),
    ]
    replicas = Replicas([(f"store-{n}", s) for n, s in enumerate(stores)], W)
    with pytest.raises(
        NotEnoughReplicas,
        match="store-0: 100 bytes free, 101 are needed; store-1: gone: no more updates",
    ):
        replicas.require_room(101)


def test_a_local_store_has_the_room_of_its_disk(tmp_path: Path) -> None:
    room = _local(tmp_path / "not" / "there").room()
    assert room is not None
    assert 0 < room <= shutil.disk_usage(tmp_path).free + (1 << 30)


# --- get ------------------------------------------------------------------------------


def test_get_of_a_key_nobody_has_is_not_found(stores: list[FlakyStore]) -> None:
    with pytest.raises(NotFound, match="in none of 3 stores"):
        _replicas(stores).get("k", 1, _as_it_is)


@pytest.mark.parametrize("good", range(N))
def test_one_good_copy_is_enough(stores: list[FlakyStore], good: int) -> None:
    _replicas(stores).put("k", b"value")
    for number, store in enumerate(stores):
        if number != good:
            store.flip("k")
    assert _replicas(stores).get("k", 5, _is(b"value")) == b"value"


def test_bad_copy_is_named_in_the_log_and_left_as_it_is(
    stores: list[FlakyStore], caplog: pytest.LogCaptureFixture
) -> None:
    _replicas(stores).put("k", b"value")
    stores[0].flip("k")
    changed = stores[0].objects["k"]
    _replicas(stores).get("k", 5, _is(b"value"))
    assert "store-1" in caplog.text
    assert stores[0].objects["k"] == changed


def test_no_good_copy_is_a_verification_error(stores: list[FlakyStore]) -> None:
    _replicas(stores).put("k", b"value")
    for store in stores:
        store.flip("k")
    with pytest.raises(VerificationError, match="no good copy: store-1"):
        _replicas(stores).get("k", 5, _is(b"value"))


def test_copy_over_the_limit_is_bad(stores: list[FlakyStore]) -> None:
    _replicas(stores).put("k", b"value")
    stores[0].objects["k"] = b"value and much more"
    assert _replicas(stores).get("k", 5, _as_it_is) == b"value"


def test_silent_store_is_not_taken_for_an_empty_one(stores: list[FlakyStore]) -> None:
    stores[1].down = True
    with pytest.raises(StorageError) as failed:
        _replicas(stores).get("k", 1, _as_it_is)
    assert not isinstance(failed.value, NotFound)


def test_all_silent_is_not_taken_for_tampering(stores: list[FlakyStore]) -> None:
    for store in stores:
        store.down = True
    with pytest.raises(StorageError, match="down"):
        _replicas(stores).get("k", 1, _as_it_is)


# --- keys, delete ---------------------------------------------------------------------


def test_keys_are_those_of_all_stores(stores: list[FlakyStore]) -> None:
    stores[0].put("a/1", b"")
    stores[2].put("a/2", b"")
    stores[2].put("b/1", b"")
    assert _replicas(stores).keys("a/") == ("a/1", "a/2")


def test_keys_need_so_many_stores_that_none_can_be_missed(
    stores: list[FlakyStore],
) -> None:
    _replicas(stores).put("k", b"v")
    stores[0].down = True
    assert _replicas(stores).keys("") == ("k",)
    stores[1].down = True
    with pytest.raises(StorageError, match="could not be listed"):
        _replicas(stores).keys("")


def test_delete_reaches_every_store(stores: list[FlakyStore]) -> None:
    _replicas(stores).put("k", b"v")
    _replicas(stores).delete("k")
    assert [s.objects for s in stores] == [{}] * N


def test_store_that_keeps_an_object_is_named(
    stores: list[FlakyStore], caplog: pytest.LogCaptureFixture
) -> None:
    _replicas(stores).put("k", b"v")
    stores[1].down = True
    _replicas(stores).delete("k")
    assert "store-2" in caplog.text
    assert [s.objects for s in stores] == [{}, {"k": b"v"}, {}]


# --- probe ----------------------------------------------------------------------------


def test_probe_leaves_nothing_behind(stores: list[FlakyStore]) -> None:
    _replicas(stores).probe()
    assert [s.objects for s in stores] == [{}] * N


def test_probe_names_every_store_that_does_not_answer(
    stores: list[FlakyStore],
) -> None:
    stores[0].down = stores[2].down = True
    with pytest.raises(ConfigurationError, match=r"2 of 3 .*store-1: .*store-3: "):
        _replicas(stores).probe()


class _Forgetful(FlakyStore):
    def get(self, key: str, max_bytes: int) -> bytes:
        return bytes(len(super().get(key, max_bytes)))


class _Full(FlakyStore):
    def put(self, key: str, value: bytes) -> None:
        raise StorageError("No space left on device")


class _Taken(FlakyStore):
    def put(self, key: str, value: bytes) -> None:
        raise AlreadyExists(key)


@pytest.mark.parametrize(
    ("bad", "says"),
    [(_Forgetful, "gave back other bytes"), (_Full, "No space"), (_Taken, "probe/")],
)
def test_probe_refuses_a_store_that_does_not_keep_bytes(
    stores: list[FlakyStore], bad: type[FlakyStore], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"1 of 3 .*store-2: .*{says}"):
        _replicas([stores[0], bad(), stores[2]]).probe()


def test_probe_names_the_store_of_another_federation(stores: list[FlakyStore]) -> None:
    _replicas(stores[1:2], 1).probe("cd" * 32)
    with pytest.raises(
        ConfigurationError, match=r"1 of 3 .* store-2: it holds the data"
    ):
        _replicas(stores).probe("ab" * 32)


# --- a store that keeps everybody waiting -----------------------------------------


class _Waiting(FlakyStore):
    """A store whose host is gone: each request waits, then fails."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock, self.asked, self.gone = clock, 0, True

    def put(self, key: str, value: bytes) -> None:
        self._wait()
        super().put(key, value)

    def get(self, key: str, max_bytes: int) -> bytes:
        self._wait()
        return super().get(key, max_bytes)

    def delete(self, key: str) -> None:
        self._wait()
        super().delete(key)

    def _wait(self) -> None:
        self.asked += 1
        if self.gone:
            self.clock.jump(SLOW)
            raise StorageError("no answer")


@pytest.fixture
def lost() -> tuple[Replicas, _Waiting, FakeClock]:
    clock = FakeClock()
    store = _Waiting(clock)
    others = [("store-2", FlakyStore()), ("store-3", FlakyStore())]
    replicas = Replicas([("store-1", store), *others], W, clock)
    replicas.put("first", b"1")
    return replicas, store, clock


def test_a_silent_store_is_waited_for_once(
    lost: tuple[Replicas, _Waiting, FakeClock],
) -> None:
    replicas, store, _ = lost
    replicas.put("second", b"2")
    replicas.delete("first")
    assert replicas.get("second", 10, _as_it_is) == b"2"
    assert store.asked == 1


def test_a_silent_store_is_asked_again_after_its_rest(
    lost: tuple[Replicas, _Waiting, FakeClock],
) -> None:
    replicas, store, clock = lost
    store.gone = False
    clock.jump(REST)
    replicas.put("second", b"2")
    assert store.objects["second"] == b"2"


def test_a_silent_store_is_asked_at_once_where_the_others_do_not_suffice() -> None:
    clock = FakeClock()
    store = _Waiting(clock)
    replicas = Replicas([("store-1", store), ("store-2", FlakyStore())], 2, clock)
    with pytest.raises(NotEnoughReplicas, match="store-1: no answer"):
        replicas.put("first", b"1")
    store.gone = False
    replicas.put("first", b"1")
    assert store.asked == 2


def test_a_store_that_fails_at_once_is_asked_each_time() -> None:
    store = FlakyStore()
    store.down = True
    others = [("store-2", FlakyStore()), ("store-3", FlakyStore())]
    replicas = Replicas([("store-1", store), *others], W, FakeClock())
    replicas.put("first", b"1")
    store.down = False
    replicas.put("second", b"2")
    assert set(store.objects) == {"second"}


# --- a store that hangs ---------------------------------------------------------------

SPARED, NEEDED = Bounds(0.2, 30.0), Bounds(0.2, 0.4)


class Mount:
    """Three local stores, the first of which does not return."""

    def __init__(self, folder: Path, quorum: int = W) -> None:
        self.hung = HungStore(_local(folder / "1"))
        self.well = [_local(folder / str(n)) for n in (2, 3)]
        stores: list[tuple[str, Store]] = [("1", self.hung)]
        stores += [("2", self.well[0]), ("3", self.well[1])]
        bounds = SPARED if quorum == W else NEEDED
        self.replicas = Replicas(stores, quorum, FakeClock(), bounds)

    def stream(self, key: str, pieces: Iterable[Bytes] = PIECES) -> None:
        self.replicas.put_stream(iter(pieces), 4, 100, lambda: key, lambda _: False)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    made = Mount(tmp_path)
    yield made
    made.hung.come_back()


def test_a_stream_goes_on_without_a_store_that_hangs(mount: Mount) -> None:
    mount.stream("k")
    assert [store.get("k", 100) for store in mount.well] == [WHOLE] * 2


def test_a_stream_that_needs_a_store_that_hangs_ends(tmp_path: Path) -> None:
    mount = Mount(tmp_path, quorum=3)
    with pytest.raises(NotEnoughReplicas, match="1: it does not return"):
        mount.stream("k")
    mount.hung.come_back()


def test_a_put_and_a_delete_go_on_without_it(mount: Mount) -> None:
    mount.replicas.put("k", b"v")
    assert [store.get("k", 1) for store in mount.well] == [b"v"] * 2
    mount.replicas.delete("k")
    assert [store.keys("") for store in mount.well] == [()] * 2


def test_reads_go_on_without_it(mount: Mount) -> None:
    for store in mount.well:
        store.put("k", b"v")
    assert mount.replicas.get("k", 1, _as_it_is) == b"v"
    assert mount.replicas.open("k", 1, lambda f: f.readinto(memoryview(bytearray(9))))
    assert mount.replicas.keys("") == ("k",)


def test_what_no_store_that_answers_has_is_not_said_to_be_nowhere(
    mount: Mount,
) -> None:
    with pytest.raises(StorageError, match="does not return") as failed:
        mount.replicas.get("k", 1, _as_it_is)
    assert not isinstance(failed.value, NotFound)


def test_room_is_asked_of_the_others(mount: Mount) -> None:
    mount.replicas.require_room(1)


def test_a_start_does_without_it_and_says_so(
    mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    mount.replicas.probe("ab" * 32)
    assert "store 1: it does not return" in caplog.text
    assert mount.hung.asked == 1


def test_a_start_that_needs_it_is_refused(tmp_path: Path) -> None:
    mount = Mount(tmp_path, quorum=3)
    with pytest.raises(ConfigurationError, match="not usable: 1: it does not return"):
        mount.replicas.probe()
    mount.hung.come_back()


def test_it_is_waited_for_once_whatever_is_done(mount: Mount) -> None:
    for number in range(3):
        mount.stream(f"s{number}")
        mount.replicas.put(f"p{number}", b"v")
        mount.replicas.get(f"p{number}", 1, _as_it_is)
        mount.replicas.keys("")
        mount.replicas.delete(f"p{number}")
    assert mount.hung.asked == 1


def test_two_threads_at_most_are_left_in_it(tmp_path: Path) -> None:
    mount = Mount(tmp_path, quorum=3)
    for number in range(MOST + 2):
        with pytest.raises(NotEnoughReplicas):
            mount.replicas.put(f"k{number}", b"v")
    assert mount.hung.asked == MOST
    mount.hung.come_back()


def test_a_stream_it_was_left_out_of_is_never_whole_there(
    mount: Mount, tmp_path: Path
) -> None:
    # Its piece changed under it while it hung: what it wrote must not be kept.
    mount.stream("k")
    mount.hung.come_back()
    left = [t for t in threading.enumerate() if t.name == "store 1"]
    for thread in left:
        thread.join(30.0)
    assert left
    assert not (tmp_path / "1" / "k").exists()


def test_a_store_that_came_back_is_written_again(mount: Mount) -> None:
    mount.replicas.put("a", b"v")
    mount.hung.come_back()
    for thread in [t for t in threading.enumerate() if t.name == "store 1"]:
        thread.join(30.0)
    mount.stream("b")
    assert mount.hung.get("b", 100) == WHOLE


def test_the_only_copy_is_asked_for_though_its_store_was_slow_once(
    tmp_path: Path,
) -> None:
    slow, others = HungStore(_local(tmp_path)), [FlakyStore(), FlakyStore()]
    pairs: list[tuple[str, Store]] = [("slow", slow)]
    pairs += [(f"store-{n}", store) for n, store in enumerate(others)]
    replicas = Replicas(pairs, W, bounds=Bounds(0.1, 5.0))
    replicas.keys("x/")  # two suffice, and the slow one is left behind
    slow.come_back()
    slow.put("manifest/1", b"m")
    for store in others:
        store.down = True
    assert replicas.get("manifest/1", 100, _is(b"m")) == b"m"


def test_what_was_asked_is_let_go_of_without_the_collector(
    stores: list[FlakyStore],
) -> None:
    """A failure that its call keeps held every update of a round until it came."""
    stores[1].put("k", b"v")
    stores[2].put("k", b"v")
    replicas = _replicas(stores)
    replicas.get("k", 10, _as_it_is)
    gc.collect()
    gc.disable()
    try:
        replicas.get("k", 10, _as_it_is)  # the first store has none, and says so
        assert gc.collect() == 0
    finally:
        gc.enable()
