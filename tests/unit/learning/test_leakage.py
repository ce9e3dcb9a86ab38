import numpy as np
import pytest

from fedsecure.errors import DataError
from fedsecure.learning.leakage import check_copies
from fedsecure.learning.schema import Column
from fedsecure.learning.sitedata import Features, Targets, Task

NUMBER = Column("n", type="numeric", bounds=(0.0, 1.0))
WORD = Column("w", type="categorical", categories=("a", "b", "c"))
RNG = np.random.default_rng(1)
CLASSES: Targets = RNG.integers(0, 3, 200)


def _check(x: Features, y: Targets, column: Column, task: Task, *allow: str) -> None:
    check_copies(x, y, [x.shape[1]], [column], task, allow)


def _one_hot(classes: Targets) -> Features:
    return np.eye(3, dtype=np.float32)[classes.astype(np.int64)]


def test_number_that_is_the_target_turned_round_is_refused() -> None:
    y = RNG.random(100).astype(np.float32)
    with pytest.raises(DataError, match='feature "n"'):
        _check((1 - 3 * y)[:, None], y, NUMBER, "regression")


def test_categories_renamed_are_refused() -> None:
    with pytest.raises(DataError, match='feature "w"'):
        _check(_one_hot((CLASSES + 1) % 3), CLASSES, WORD, "multiclass")


def test_allowed_name_passes() -> None:
    _check(_one_hot(CLASSES), CLASSES, WORD, "multiclass", "w")
    with pytest.raises(DataError):
        _check(_one_hot(CLASSES), CLASSES, WORD, "multiclass", "other")


def test_good_feature_passes() -> None:
    noisy = np.where(RNG.random(200) < 0.05, 0, CLASSES)
    _check(_one_hot(noisy), CLASSES, WORD, "multiclass")
    with pytest.raises(DataError):
        _check(_one_hot(CLASSES), CLASSES, WORD, "multiclass")


def test_rare_class_makes_no_feature_a_copy() -> None:
    y = np.zeros(2000, dtype=np.int64)
    y[0] = 1
    x = RNG.integers(0, 3, 2000)
    _check(_one_hot(x), y, WORD, "binary")
    with pytest.raises(DataError):
        _check(y[:, None].astype(np.float32), y, NUMBER, "binary")


def test_constant_feature_passes() -> None:
    x = np.ones((200, 1), dtype=np.float32)
    _check(x, CLASSES, NUMBER, "multiclass")
    with pytest.raises(DataError):
        _check(CLASSES[:, None].astype(np.float32), CLASSES, NUMBER, "multiclass")


def test_perfect_fit_of_few_rows_is_nothing_unusual() -> None:
    _check(_one_hot(CLASSES[:19]), CLASSES[:19], WORD, "multiclass")
    with pytest.raises(DataError):
        _check(_one_hot(CLASSES[:20]), CLASSES[:20], WORD, "multiclass")
