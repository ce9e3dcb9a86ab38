"""What a site keeps of a run: written once, read with a limit, refused when changed."""

from collections.abc import Callable

import numpy as np
import pytest

from fedsecure.errors import AlreadyExists, ConfigurationError, VerificationError
from fedsecure.shelf import Shelf, read_layout
from fedsecure.update import Layout
from tests.fakes.disk import PowerLost
from tests.fakes.store import FlakyStore, Power

LAYOUT = Layout(("w", "b"), ((2, 3), (3,)))
MODEL = np.arange(9, dtype=np.float64)


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def shelf(store: FlakyStore) -> Shelf:
    return Shelf(store, "run", 1000)


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
    Shelf(store, "run", 1000).keep_answer(1, b"answer")
    assert Shelf(store, "run", 1000).answer(1) == b"answer"


def test_runs_do_not_see_one_another(store: FlakyStore) -> None:
    Shelf(store, "run", 1000).keep_answer(1, b"answer")
    assert Shelf(store, "run2", 1000).answer(1) is None


@pytest.mark.parametrize(
    ("keep", "other"),
    [
        (lambda s: s.keep_plan({"a": 1}), lambda s: s.keep_plan({"a": 2})),
        (lambda s: s.keep_answer(1, b"a"), lambda s: s.keep_answer(1, b"b")),
        (lambda s: s.keep_answer(1, b"long"), lambda s: s.keep_answer(1, b"s")),
        (lambda s: s.keep_model(1, MODEL), lambda s: s.keep_model(1, MODEL + 1)),
        (
            lambda s: s.keep_first_model(LAYOUT, MODEL),
            lambda s: s.keep_first_model(LAYOUT, MODEL + 1),
        ),
    ],
    ids=["plan", "answer", "longer answer", "model", "first model"],
)
def test_what_is_on_the_shelf_never_changes(
    shelf: Shelf,
    store: FlakyStore,
    keep: Callable[[Shelf], None],
    other: Callable[[Shelf], None],
) -> None:
    keep(shelf)
    before = dict(store.objects)
    with pytest.raises(AlreadyExists):
        other(shelf)
    assert store.objects == before


def test_answer_that_was_kept_before_power_was_lost_stays(store: FlakyStore) -> None:
    store.power = Power(dies_at=1)
    with pytest.raises(PowerLost):
        Shelf(store, "run", 1000).keep_answer(1, b"first")
    store.power = Power()
    shelf = Shelf(store, "run", 1000)
    assert shelf.answer(1) is None
    shelf.keep_answer(1, b"second")
    assert shelf.answer(1) == b"second"


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


@pytest.mark.parametrize("run", ["../other", "", "/etc", "a b"])
def test_run_that_is_no_plain_name_touches_nothing(store: FlakyStore, run: str) -> None:
    with pytest.raises(ConfigurationError, match="store key"):
        Shelf(store, run, 1000).keep_answer(1, b"a")
    assert store.objects == {}


def test_object_over_the_limit_is_refused(store: FlakyStore) -> None:
    Shelf(store, "run", 1000).keep_answer(1, bytes(11))
    with pytest.raises(VerificationError, match="at most 10"):
        Shelf(store, "run", 10).answer(1)


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
