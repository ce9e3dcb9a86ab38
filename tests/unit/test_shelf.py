"""What a site keeps of a run: written once, read with a limit, refused when changed."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure import shelf as shelves
from fedsecure.disk import SystemDisk
from fedsecure.envelope import Head, Kind, Scope, parse, sign_head
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    NoRoom,
    NotFound,
    VerificationError,
)
from fedsecure.keys import SigningKey
from fedsecure.ranges import Ranges
from fedsecure.shelf import Kept, Shelf, read_layout
from fedsecure.stores.local import LocalStore
from fedsecure.update import Layout, RoundId
from tests.fakes.disk import PowerLost
from tests.fakes.store import FlakyStore, Power

LAYOUT = Layout(("w", "b"), ((2, 3), (3,)))
MODEL = np.arange(9, dtype=np.float64)
KEY = SigningKey.from_bytes(b"k" * 32)
BODY = bytes(range(10))


def seal(size: int, sha256: str) -> Head:
    scope = Scope(RoundId("run", 1), "site", b"", b"", b"")
    return sign_head(Kind.UPDATE, scope, {}, (size, sha256), signer="site", key=KEY)


def keep(shelf: Shelf, *chunks: bytes, number: int = 1) -> Kept:
    return shelf.keep_answer(number, chunks, seal)


def body(shelf: Shelf, number: int = 1) -> bytes:
    kept = shelf.answer(number)
    assert kept is not None
    return bytes(parse(kept.outgoing.to_bytes(), 1000).body)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pieces of at most four bytes: a body of ten lies in three."""
    monkeypatch.setattr(shelves, "PIECE_BYTES", 4)


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def shelf(store: FlakyStore) -> Shelf:
    return Shelf(store, "run", 1000)


def test_room_that_is_less_than_an_answer_takes_is_said(
    shelf: Shelf, store: FlakyStore
) -> None:
    store.left = 999 + shelves._SPARE
    with pytest.raises(NoRoom, match="its answer and the next model take 1000"):
        shelf.require_room(1, 1000)
    store.left += 1
    shelf.require_room(1, 1000)


def test_store_that_cannot_tell_its_room_is_not_in_the_way(shelf: Shelf) -> None:
    shelf.require_room(1, 1 << 60)


def test_asking_for_room_removes_what_an_attempt_that_died_left(
    shelf: Shelf, store: FlakyStore
) -> None:
    store.put("run/body/1/0", b"left")
    keep(shelf, BODY, number=2)
    shelf.require_room(1, 1)
    assert "run/body/1/0" not in store.objects
    assert body(shelf, 2) == BODY


def test_empty_shelf_has_nothing(shelf: Shelf) -> None:
    found = (shelf.plan(), shelf.layout(), shelf.model(0), shelf.answer(1))
    assert found == (None, None, None, None)


def test_plan_is_kept_and_a_repeat_is_no_error(shelf: Shelf) -> None:
    for _ in range(2):
        shelf.keep_plan({"rounds": 3, "run": "run"})
    assert shelf.plan() == {"rounds": 3, "run": "run"}


def test_first_model_is_kept_with_its_layout(shelf: Shelf) -> None:
    shelf.keep_first_model(LAYOUT, MODEL)
    model = shelf.model(0)
    assert shelf.layout() == LAYOUT
    assert model is not None
    assert model.dtype == np.float64
    np.testing.assert_array_equal(model, MODEL)


def test_model_comes_back_to_the_bit(shelf: Shelf) -> None:
    odd = np.array([-0.0, 5e-324, 1e308, np.nextafter(1.0, 2.0)])
    shelf.keep_model(4, odd)
    model = shelf.model(4)
    assert model is not None
    assert model.tobytes() == odd.tobytes()


def test_shelf_outlives_its_object(store: FlakyStore) -> None:
    keep(Shelf(store, "run", 1000), BODY)
    assert body(Shelf(store, "run", 1000)) == BODY


def test_runs_do_not_see_one_another(store: FlakyStore) -> None:
    keep(Shelf(store, "run", 1000), BODY)
    assert Shelf(store, "run2", 1000).answer(1) is None


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (lambda s: s.keep_plan({"a": 1}), lambda s: s.keep_plan({"a": 2})),
        (lambda s: keep(s, b"a"), lambda s: keep(s, b"b")),
        (lambda s: keep(s, b"long"), lambda s: keep(s, b"s")),
        (lambda s: keep(s, b""), lambda s: keep(s, b"b")),
        (lambda s: s.keep_model(1, MODEL), lambda s: s.keep_model(1, MODEL + 1)),
        (
            lambda s: s.keep_first_model(LAYOUT, MODEL),
            lambda s: s.keep_first_model(LAYOUT, MODEL + 1),
        ),
    ],
    ids=["plan", "answer", "longer answer", "empty", "model", "first model"],
)
def test_what_is_on_the_shelf_never_changes(
    shelf: Shelf,
    store: FlakyStore,
    first: Callable[[Shelf], None],
    other: Callable[[Shelf], None],
) -> None:
    first(shelf)
    before = dict(store.objects)
    with pytest.raises(AlreadyExists):
        other(shelf)
    assert store.objects == before


# --- the outbox -----------------------------------------------------------------------


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_answer_without_its_head_is_none_and_the_next_attempt_replaces_it(
    store: FlakyStore, step: int
) -> None:
    store.power = Power(dies_at=step)  # three pieces, then the head
    with pytest.raises(PowerLost):
        keep(Shelf(store, "run", 1000), BODY)
    assert len(store.objects) == step - 1
    store.power = Power()
    shelf = Shelf(store, "run", 1000)
    assert shelf.answer(1) is None
    keep(shelf, b"other")
    assert body(shelf) == b"other"
    assert len(store.objects) == 3


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("step", [1, 2, 3])
def test_death_while_leftovers_are_removed_leaves_no_answer(
    store: FlakyStore, step: int
) -> None:
    store.power = Power(dies_at=4)
    with pytest.raises(PowerLost):
        keep(Shelf(store, "run", 1000), BODY)
    store.power = Power(dies_at=step)
    with pytest.raises(PowerLost):
        keep(Shelf(store, "run", 1000), b"other")
    store.power = Power()
    shelf = Shelf(store, "run", 1000)
    assert shelf.answer(1) is None
    keep(shelf, b"third")
    assert body(shelf) == b"third"


@pytest.mark.usefixtures("short")
def test_a_piece_is_durable_before_the_next_chunk_is_made(store: FlakyStore) -> None:
    seen = []

    def chunks() -> Iterator[bytes]:
        for i in range(3):
            seen.append(len(store.objects))
            yield bytes([i]) * 4

    Shelf(store, "run", 1000).keep_answer(1, chunks(), seal)
    assert seen == [0, 1, 2]


@pytest.mark.usefixtures("short")
def test_head_is_made_when_the_whole_body_is_kept(store: FlakyStore) -> None:
    def late(size: int, sha256: str) -> Head:
        assert [len(store.objects[f"run/body/1/{i}"]) for i in range(3)] == [4, 4, 2]
        assert sha256 == hashlib.sha256(BODY).hexdigest()
        return seal(size, sha256)

    Shelf(store, "run", 1000).keep_answer(1, [BODY], late)
    assert len(store.objects) == 4


@pytest.mark.usefixtures("short")
def test_chunks_that_fail_leave_no_answer(shelf: Shelf) -> None:
    def chunks() -> Iterator[bytes]:
        yield BODY
        raise VerificationError("not finite")

    with pytest.raises(VerificationError, match="not finite"):
        shelf.keep_answer(1, chunks(), seal)
    assert shelf.answer(1) is None


@pytest.mark.usefixtures("short")
@given(cuts=st.lists(st.integers(0, 40), max_size=4))
def test_bytes_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    data, ends = bytes(range(40)), sorted(cuts)
    pieces = [data[a:b] for a, b in zip([0, *ends], [*ends, 40], strict=True)]
    shelf = Shelf(FlakyStore(), "run", 1000)
    kept = keep(shelf, *pieces)
    envelope = parse(kept.outgoing.to_bytes(), 1000)
    assert (envelope.body, envelope.head) == (data, kept.head)
    assert len(kept.outgoing) == len(kept.outgoing.to_bytes())


@pytest.mark.usefixtures("short")
def test_reading_the_head_reads_no_body(store: FlakyStore, shelf: Shelf) -> None:
    keep(shelf, BODY)
    for i in range(3):
        del store.objects[f"run/body/1/{i}"]
    kept = shelf.answer(1)
    assert kept is not None
    assert kept.head.body_bytes == len(BODY)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("piece", [0, 1, 2])
def test_changed_piece_is_found_before_it_is_sent_again(
    store: FlakyStore, shelf: Shelf, piece: int
) -> None:
    kept = keep(shelf, BODY)
    kept.check()
    store.flip(f"run/body/1/{piece}")
    with pytest.raises(VerificationError, match="round 1 of run was changed"):
        kept.check()


@pytest.mark.usefixtures("short")
def test_lost_piece_is_found_before_it_is_sent_again(
    store: FlakyStore, shelf: Shelf
) -> None:
    kept = keep(shelf, BODY)
    del store.objects["run/body/1/1"]
    with pytest.raises(NotFound):
        kept.check()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("data", [b"", b"12345"])
def test_piece_of_another_length_is_found(
    store: FlakyStore, shelf: Shelf, data: bytes
) -> None:
    kept = keep(shelf, BODY)
    store.objects["run/body/1/1"] = data
    with pytest.raises(VerificationError, match="announced"):
        kept.check()


@pytest.mark.parametrize("cut", [0, 5, -5, -1])
def test_cut_head_is_refused(store: FlakyStore, shelf: Shelf, cut: int) -> None:
    keep(shelf, BODY)
    store.objects["run/out/1"] = store.objects["run/out/1"][:cut]
    with pytest.raises(VerificationError):
        shelf.answer(1)


def test_outbox_lies_in_a_file_system_too(tmp_path: Path) -> None:
    shelf = Shelf(LocalStore(tmp_path, SystemDisk()), "run", 1000)
    keep(shelf, BODY)
    assert body(shelf) == BODY


@pytest.mark.parametrize("step", [1, 2])
def test_first_model_after_power_was_lost_at_any_step(
    store: FlakyStore, step: int
) -> None:
    store.power = Power(dies_at=step)
    with pytest.raises(PowerLost):
        Shelf(store, "run", 1000).keep_first_model(LAYOUT, MODEL)
    store.power = Power()
    shelf = Shelf(store, "run", 1000)
    shelf.keep_first_model(LAYOUT, MODEL)
    assert shelf.layout() == LAYOUT
    assert shelf.model(0) is not None


def test_old_models_go_and_the_first_stays(store: FlakyStore, shelf: Shelf) -> None:
    for number in (0, 1, 2, 10):
        shelf.keep_model(number, MODEL)
    store.put("run/model/notes", b"a stray file")
    shelf.forget_models(10)
    assert store.keys("run/model/") == (
        "run/model/0",
        "run/model/10",
        "run/model/notes",
    )


def test_ranges_come_back_and_go_with_their_models(
    store: FlakyStore, shelf: Shelf
) -> None:
    for number in (1, 2, 10):
        shelf.keep_ranges(number, Ranges(1.0, (9,), (2.0**-number,)))
    assert shelf.ranges(2) == Ranges(1.0, (9,), (0.25,))
    shelf.forget_models(10)
    assert store.keys("run/ranges/") == ("run/ranges/10",)
    assert shelf.ranges(2) is None


def test_ranges_never_change(shelf: Shelf) -> None:
    shelf.keep_ranges(1, Ranges(1.0))
    shelf.keep_ranges(1, Ranges(1.0))
    with pytest.raises(AlreadyExists):
        shelf.keep_ranges(1, Ranges(0.5))


@pytest.mark.parametrize("run", ["../other", "", "/etc", "a b"])
def test_run_that_is_no_plain_name_touches_nothing(store: FlakyStore, run: str) -> None:
    with pytest.raises(ConfigurationError, match="store key"):
        keep(Shelf(store, run, 1000), b"a")
    assert store.objects == {}


def test_object_over_the_limit_is_refused(store: FlakyStore) -> None:
    Shelf(store, "run", 1000).keep_model(1, MODEL)
    with pytest.raises(VerificationError, match="at most 10"):
        Shelf(store, "run", 10).model(1)


def test_answer_over_the_limit_is_refused_unread(store: FlakyStore) -> None:
    keep(Shelf(store, "run", 10_000), bytes(1000))
    with pytest.raises(VerificationError, match="at most 1000"):
        Shelf(store, "run", 1000).answer(1)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"[" * 100_000, b"7"])
def test_changed_plan_is_refused(store: FlakyStore, shelf: Shelf, data: bytes) -> None:
    store.objects["run/plan"] = data
    with pytest.raises(VerificationError, match="plan on the shelf"):
        shelf.plan()


def test_cut_model_is_refused(store: FlakyStore, shelf: Shelf) -> None:
    shelf.keep_model(1, MODEL)
    store.objects["run/model/1"] = store.objects["run/model/1"][:-1]
    with pytest.raises(VerificationError, match="71 bytes"):
        shelf.model(1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"[7]",
        b'[["w"]]',
        b'[["w",[0]]]',
        b'[["w",[-1]]]',
        b'[["w",7]]',
        b'[["w",["x"]]]',
        b'[["w",[1e999]]]',
        b'[["w",[null]]]',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_layout_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="layout"):
        read_layout(data)


def test_scalar_has_the_empty_shape() -> None:
    assert read_layout(b'[["t",[]]]') == Layout(("t",), ((),))
