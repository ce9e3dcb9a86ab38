import pytest
import torch
from torch import Tensor

from fedsecure.privacy.gradients.gram import gram_norms, prefers_gram


def _pair(count: int = 5) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    a = torch.randn(count, 4, 30, generator=draws)
    return a, torch.randn(count, 4, 20, generator=draws)


def test_norms_are_those_of_the_products() -> None:
    a, g = _pair()
    found = gram_norms(a, g)
    expected = (a.double().transpose(1, 2) @ g.double()).square().sum((1, 2))
    assert found is not None
    assert torch.allclose(found, expected, rtol=1e-6)


def test_terms_that_cancel_are_refused_where_float32_would_clip_too_little() -> None:
    a, g = _pair()
    a[2, 1], g[2, 1] = a[2, 0], -g[2, 0] * (1 + 1e-4)
    a[2, 2:] = 0
    assert gram_norms(a, g) is None
    assert gram_norms(a[[0, 1, 3]], g[[0, 1, 3]]) is not None


@pytest.mark.parametrize("scale", [1e-25, 1e-38, 1e15])
def test_small_slopes_on_large_inputs_keep_their_norm(scale: float) -> None:
    a, g = _pair()
    found, expected = gram_norms(a / scale, g * scale), gram_norms(a, g)
    assert found is not None
    assert expected is not None
    assert torch.allclose(found, expected, rtol=1e-4)


def test_nothing_has_norm_zero() -> None:
    found = gram_norms(torch.zeros(2, 3, 4), torch.ones(2, 3, 5))
    assert found is not None
    assert found.tolist() == [0, 0]


def test_nan_of_one_example_stays_its_own() -> None:
    a, g = _pair()
    a[1, 0, 0] = float("nan")
    found = gram_norms(a, g)
    assert found is not None
    assert torch.isfinite(found).tolist() == [True, False, True, True, True]


def test_small_products_are_made() -> None:
    assert not prefers_gram(1, 100, 100)
    assert not prefers_gram(576, 288, 64)


def test_large_products_on_few_positions_are_not() -> None:
    assert prefers_gram(64, 768, 768)
    assert not prefers_gram(1024, 768, 768)
