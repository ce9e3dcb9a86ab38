import math

import pytest
import torch
from torch import Tensor

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients import examples
from fedsecure.privacy.gradients.examples import (
    check_losses,
    clipped,
    quick_squared_norms,
    squared_norms,
    weighted_sum,
)


def _draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_norms_are_over_all_but_the_first_dimension() -> None:
    found = squared_norms(_draws(3, 4, 5))
    assert torch.allclose(found, _draws(3, 4, 5).double().square().sum((1, 2)))


def test_squares_below_float32_are_not_lost() -> None:
    assert float(squared_norms(torch.full((1, 1), 1e-30))) == pytest.approx(1e-60)


def test_norms_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _draws(7, 5)
    whole = squared_norms(rows), weighted_sum(torch.ones(7).double(), rows)
    monkeypatch.setattr(examples, "_BLOCK_FLOATS", 12)
    blocks = squared_norms(rows), weighted_sum(torch.ones(7).double(), rows)
    assert torch.equal(whole[0], blocks[0])
    assert torch.allclose(whole[1], blocks[1], rtol=1e-14, atol=0)


def test_no_rows_have_no_norms() -> None:
    assert squared_norms(torch.zeros(0, 3)).shape == (0,)


def test_quick_norms_are_those_of_float64_within_2_to_the_minus_12() -> None:
    rows = [_draws(6, 4096) * 1e3, _draws(6, 9)]
    for found, row in zip(quick_squared_norms(rows), rows, strict=True):
        assert found.dtype == torch.float64
        assert torch.allclose(found, squared_norms(row), rtol=2**-12, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_quick_norms_lose_nothing_below_or_above_float32(scale: float) -> None:
    rows = [_draws(3, 4), _draws(3, 4) * scale]
    for found, row in zip(quick_squared_norms(rows), rows, strict=True):
        assert torch.equal(found, squared_norms(row))


def test_quick_norms_of_long_rows_are_added_in_float64() -> None:
    rows = [_draws(2, 4097), _draws(2, 3)]
    for found, row in zip(quick_squared_norms(rows), rows, strict=True):
        assert torch.equal(found, squared_norms(row))


def test_one_row_that_is_not_finite_leaves_the_others_alone() -> None:
    rows = _draws(3, 4)
    rows[1, 2] = math.nan
    found = quick_squared_norms([rows])[0]
    assert math.isnan(float(found[1]))
    assert torch.equal(found[[0, 2]], squared_norms(rows)[[0, 2]])


def test_weighted_sum_leaves_rows_of_factor_zero_out() -> None:
    gradients = _draws(3, 2)
    gradients[1] = math.nan
    found = weighted_sum(torch.tensor([1.0, 0.0, 0.5]).double(), gradients)
    assert torch.equal(found, (gradients[0] + 0.5 * gradients[2].double()))


def test_norm_of_an_example_is_over_all_weights() -> None:
    found = clipped([_draws(1, 2, 3) * 100, _draws(1, 4) * 100], 2.0)
    assert found.shape == (10,)
    assert float(found.norm()) == pytest.approx(2 * (1 - 2**-10), rel=1e-6)


def test_short_gradients_are_left_as_they_are() -> None:
    gradient = _draws(1, 4)
    assert torch.equal(clipped([gradient], 100.0), gradient[0].double())


@pytest.mark.parametrize("shape", [(), (4,), (3, 1)])
def test_losses_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"must be \(3,\)"):
        check_losses(torch.zeros(shape), 3)


def test_losses_without_a_gradient_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="does not depend on any trainable"):
        check_losses(torch.zeros(3), 3)
