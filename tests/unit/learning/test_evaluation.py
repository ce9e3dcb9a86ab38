import math

import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from fedsecure.learning.evaluation import LOSSES, evaluate
from fedsecure.learning.sitedata import Task


def _rows(n: int, outputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, outputs, generator=generator)


def test_binary_scores_are_those_of_scikit_learn() -> None:
    x, y = _rows(50, 1), torch.arange(50) % 2
    found = evaluate(nn.Identity(), x, y, "binary")
    share = torch.sigmoid(x.double()).squeeze(1)
    assert found["accuracy"] == metrics.accuracy_score(y, share > 0.5)
    assert found["loss"] == pytest.approx(metrics.log_loss(y, share))


def test_multiclass_scores_are_those_of_scikit_learn() -> None:
    x, y = _rows(50, 3), torch.arange(50) % 3
    found = evaluate(nn.Identity(), x, y, "multiclass")
    shares = torch.softmax(x.double(), dim=1)
    assert found["accuracy"] == metrics.accuracy_score(y, shares.argmax(1))
    assert found["loss"] == pytest.approx(metrics.log_loss(y, shares))


def test_regression_scores_are_those_of_scikit_learn() -> None:
    x, y = _rows(50, 1), _rows(50, 2)[:, 1].contiguous()
    found = evaluate(nn.Identity(), x, y, "regression")
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(y, x))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, x))


def test_equal_targets_have_no_variance_to_explain() -> None:
    found = evaluate(nn.Identity(), _rows(5, 1), torch.ones(5), "regression")
    assert found["r2"] == 0


def test_no_test_rows_give_their_number_and_nothing_else() -> None:
    none = torch.zeros(0, 1)
    assert evaluate(nn.Identity(), none, none[:, 0], "binary") == {"num_test": 0.0}


def test_rows_are_counted() -> None:
    found = evaluate(nn.Identity(), _rows(7, 1), torch.zeros(7), "regression")
    assert found["num_test"] == 7


def test_numbers_that_are_not_finite_are_left_out() -> None:
    x = torch.full((3, 1), math.inf)
    found = evaluate(nn.Identity(), x, torch.arange(3.0), "regression")
    assert found == {"num_test": 3.0}


def test_many_rows_are_taken_in_parts() -> None:
    seen: list[int] = []

    class Counts(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            seen.append(len(rows))
            return rows

    evaluate(Counts(), torch.zeros(10_000, 1), torch.zeros(10_000), "regression")
    assert sum(seen) == 10_000
    assert len(seen) > 1


def test_evaluation_is_without_dropout() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    x = torch.ones(100, 1)
    assert evaluate(model, x, torch.ones(100), "regression")["mse"] == 0


@pytest.mark.parametrize("task", list(LOSSES))
def test_each_row_has_one_loss(task: Task) -> None:
    outputs = _rows(6, 3 if task == "multiclass" else 1)
    assert LOSSES[task](outputs, torch.zeros(6, dtype=torch.int64)).shape == (6,)
