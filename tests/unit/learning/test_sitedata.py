from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsecure.errors import DataError
from fedsecure.learning.sitedata import SiteData, pool


def _site(value: float = 0.0, rows: int = 4, **changes: Any) -> SiteData:
    x = np.full((rows, 2), value, dtype=np.float32)
    y = np.arange(rows, dtype=np.int64) % 2
    return replace(SiteData(x, y, x[:2], y[:2], "binary", 1, (2,)), **changes)


def _one(part: str, value: Any) -> dict[str, Any]:
    return {part: value}


def test_a_site_without_training_rows_is_refused() -> None:
    with pytest.raises(DataError, match="no training rows"):
        _site(train_x=np.zeros((0, 2), np.float32), train_y=np.zeros(0, np.int64))


def test_a_site_without_test_rows_is_taken() -> None:
    none = np.zeros((0, 2), np.float32)
    assert len(_site(test_x=none, test_y=np.zeros(0, np.int64)).test_x) == 0


@pytest.mark.parametrize("part", ["train_x", "test_x"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_refused(part: str, bad: float) -> None:
    rows = 4 if part == "train_x" else 2
    with pytest.raises(DataError, match="NaN or Inf"):
        _site(**_one(part, np.full((rows, 2), bad, dtype=np.float32)))


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"must be float32 \(n, 3\)"):
        _site(input_shape=(3,))


def test_rows_in_double_precision_are_refused() -> None:
    with pytest.raises(DataError, match="train rows are float64"):
        _site(train_x=np.zeros((4, 2)))


def test_targets_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="train targets are int64"):
        _site(train_y=np.zeros(3, np.int64))


def test_a_class_beyond_the_outputs_is_refused() -> None:
    with pytest.raises(DataError, match="run from 0 to 2, must be 0 to 1"):
        _site(train_y=np.array([0, 1, 2, 0]))


def test_a_negative_class_is_refused() -> None:
    with pytest.raises(DataError, match="run from -1"):
        _site(train_y=np.array([0, 1, -1, 0]))


def test_a_regression_takes_real_targets() -> None:
    y = np.array([0.5, -2, 3, 4], dtype=np.float32)
    data = _site(task="regression", train_y=y, test_y=y[:2])
    assert data.train_y.dtype == np.float32


@pytest.mark.parametrize(
    ("task", "outputs"), [("binary", 2), ("multiclass", 1), ("regression", 0)]
)
def test_outputs_that_do_not_fit_the_task_are_refused(task: str, outputs: int) -> None:
    with pytest.raises(DataError, match=f"does not have {outputs} outputs"):
        _site(task=task, outputs=outputs)


def test_an_unknown_task_names_the_known() -> None:
    with pytest.raises(DataError, match="binary, multiclass, regression"):
        _site(task="survival")


def test_pooling_keeps_training_and_test_apart() -> None:
    whole = pool([_site(0.0), _site(1.0, rows=6)])
    assert (len(whole.train_x), len(whole.test_x)) == (10, 4)


def test_pooling_keeps_the_order_of_sites() -> None:
    whole = pool([_site(0.0), _site(1.0)])
    assert whole.train_x[:, 0].tolist() == [0.0] * 4 + [1.0] * 4


def test_equal_training_rows_have_equal_digests() -> None:
    assert _site().digest() == _site().digest()


def test_another_row_or_target_makes_another_digest() -> None:
    other = _site(train_y=np.array([1, 1, 0, 1]))
    assert len({_site().digest(), _site(1.0).digest(), other.digest()}) == 3


def _users(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, dtype=np.int64)


def test_persons_are_counted_by_their_numbers() -> None:
    assert _site(train_users=_users(0, 1, 1, 0)).users == 2


def test_rows_without_persons_have_none() -> None:
    assert _site().users == 0


@pytest.mark.parametrize("numbers", [(0, 2, 2, 0), (1, 2, 3, 4), (-1, 0, 1, 0)])
def test_persons_whose_numbers_leave_one_out_are_refused(
    numbers: tuple[int, ...],
) -> None:
    with pytest.raises(DataError, match="number them from 0"):
        _site(train_users=_users(*numbers))


def test_persons_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"must be int64 \(4,\)"):
        _site(train_users=_users(0, 1))


def test_persons_of_two_sites_stay_apart_when_pooled() -> None:
    both = pool([_site(train_users=_users(0, 1, 1, 0))] * 2)
    assert both.train_users is not None
    assert both.train_users.tolist() == [0, 1, 1, 0, 2, 3, 3, 2]


def test_whose_a_row_is_is_part_of_the_content() -> None:
    one = _site(train_users=_users(0, 1, 1, 0)).digest()
    assert one != _site(train_users=_users(0, 1, 0, 1)).digest()
