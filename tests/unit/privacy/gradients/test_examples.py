import math

import pytest
import torch
from torch import Tensor

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.examples import (
    check_losses,
    clipped,
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
