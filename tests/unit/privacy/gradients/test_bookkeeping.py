"""Whole models through book-keeping, and what it refuses while they run."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.bookkeeping import BookKeeping, CalledTwice
from fedsecure.update import Vector
from tests.fakes.modules import (
    Adds,
    Attention,
    Borrows,
    Folds,
    Transformer,
    Unused,
    Words,
    cnn,
    low_rank,
    mlp,
)
from tests.fakes.oracle import by_vmap, distance, each_loss, rows_of

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _found(module: nn.Module, x: Tensor, y: Tensor, clip: float = 1.0) -> Vector:
    size = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = torch.zeros(size, dtype=torch.float64, device=x.device)
    engine = BookKeeping(module, each_loss, clip)
    try:
        engine.add(x, y, total)
    finally:
        engine.close()
    found: Vector = total.cpu().numpy()
    return found


def _vectors(count: int = 9) -> tuple[Tensor, Tensor]:
    return rows_of((6,), count)


def _tokens(count: int = 9) -> tuple[Tensor, Tensor]:
    x, y = rows_of((7,), count)
    return (x.abs() * 4).long().clamp(max=10), y


def _in_place() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3)
    )


def _in_place_on_a_view() -> nn.Module:
    # A linear layer's output on sequences is a view, which torch guards.
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, Tensor]]] = {
    "mlp": (mlp, _vectors()),
    "cnn": (cnn, rows_of((2, 6, 6), 9)),
    "attention": (Attention, rows_of((5, 8), 9)),
    "transformer": (Transformer, _tokens()),
    "low rank": (low_rank, _vectors()),
    "in place": (_in_place, rows_of((1, 6), 9)),
    "in place on a view": (_in_place_on_a_view, rows_of((4, 6), 9)),
}
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


@pytest.mark.parametrize("clip", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize(("kind", "bound"), PRECISIONS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_model_gives_the_oracles_sum(
    name: str, kind: torch.dtype, bound: float, clip: float
) -> None:
    make, (x, y) = MODELS[name]
    torch.manual_seed(1)
    module = make().to(kind)
    x = x.to(kind) if x.is_floating_point() else x
    found = _found(module, x, y, clip)
    assert distance(found, by_vmap(module, x, y, clip)) <= bound


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("name", MODELS)
def test_model_gives_the_oracles_sum_on_cuda(name: str) -> None:
    make, (x, y) = MODELS[name]
    module = make().double()
    x = x.double() if x.is_floating_point() else x
    expected = by_vmap(module, x, y, 1.0)
    found = _found(module.cuda(), x.cuda(), y.cuda())
    assert distance(found, expected) <= 1e-8


def test_sum_is_added_to_what_is_there() -> None:
    module, (x, y) = mlp(), _vectors()
    total = torch.ones(sum(p.numel() for p in module.parameters())).double()
    engine = BookKeeping(module, each_loss, 1.0)
    engine.add(x, y, total)
    engine.close()
    assert np.allclose(total.numpy() - 1, _found(module, x, y))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "low rank"])
def test_example_without_a_finite_gradient_counts_as_zero(
    name: str, bad: float
) -> None:
    make, (x, y) = MODELS[name]
    module, spoilt = make(), x.clone()
    spoilt[4] = bad
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    found, expected = _found(module, spoilt, y), _found(module, x[kept], y[kept])
    assert np.allclose(found, expected, atol=1e-6)


def test_no_finite_example_is_the_zero_vector() -> None:
    found = _found(mlp(), torch.full((3, 6), float("nan")), torch.zeros(3).long())
    assert np.count_nonzero(found) == 0


def test_half_precision_is_clipped_without_overflow() -> None:
    module = nn.Linear(6, 3).to(torch.bfloat16)
    x, y = _vectors()
    found = _found(module, (x * 1e25).to(torch.bfloat16), y, 1.0)
    assert 0 < np.linalg.norm(found) <= len(x)


def test_gram_matrices_of_half_precision_are_made_in_float32() -> None:
    module = nn.Linear(256, 160, bias=False).to(torch.bfloat16)
    x, y = rows_of((3, 256), 1)
    found = _found(module, x.to(torch.bfloat16), y, 1e-4)
    assert np.linalg.norm(found) == pytest.approx(1e-4 * (1 - 2**-10), rel=1e-5)


def test_slopes_too_small_for_float32_squares_are_still_clipped() -> None:
    def tiny(out: Tensor, _: Tensor) -> Tensor:
        return out.sum(1) * 1e-24

    module, total = nn.Linear(6, 3, bias=False), torch.zeros(18).double()
    engine = BookKeeping(module, tiny, 1.0)
    engine.add(torch.full((1, 6), 1e30), torch.zeros(1), total)
    engine.close()
    assert float(total.norm()) == pytest.approx(1 - 2**-10, rel=1e-6)


def test_layer_called_twice_is_refused_by_name() -> None:
    with pytest.raises(CalledTwice, match=r"'mix' runs twice.*engine=hooks"):
        _found(Words(), *_tokens())


def test_recomputed_layer_is_a_layer_called_twice() -> None:
    class Recomputes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.head, x.requires_grad_(), use_reentrant=False)

    with pytest.raises(CalledTwice, match="'head' runs twice"):
        _found(Recomputes(), *_vectors())


def test_input_changed_in_place_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'second'.*changed in place"):
        _found(Adds(), *_vectors())


def test_weight_used_past_its_layer_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'head\.weight' is used outside"):
        _found(Borrows(), *_vectors())


def test_weight_without_a_gradient_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'spare\.weight' has no gradient"):
        _found(Unused(), *_vectors())


def test_examples_outside_the_first_dimension_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="examples are in the first dimension"):
        _found(Folds(), *_vectors())


def test_module_is_itself_again_after_a_refusal() -> None:
    module = Words()
    with pytest.raises(CalledTwice):
        _found(module, *_tokens())
    assert all(p.requires_grad for p in module.parameters())
    module(_tokens()[0]).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_hooks_are_deaf_outside_a_sum() -> None:
    module, (x, _) = mlp(), _vectors()
    engine = BookKeeping(module, each_loss, 1.0)
    module(x[:2]).sum().backward()
    engine.close()
    assert all(p.grad is not None for p in module.parameters())


def test_leftover_gradients_are_no_part_of_the_sum() -> None:
    module, (x, y) = mlp(), _vectors()
    expected = _found(module, x, y)
    module(x).sum().backward()
    assert np.array_equal(_found(module, x, y), expected)


def test_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _found(Transformer(), *_tokens())


def test_dropout_is_the_same_for_norm_and_sum() -> None:
    module = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    x, y = _vectors(1)  # not scaled up: where the loss is flat there is no gradient
    for _ in range(5):
        found = _found(module, x, y, 1e-6)
        assert np.linalg.norm(found) == pytest.approx(1e-6 * (1 - 2**-10), rel=1e-5)


def test_rounding_does_not_move_the_sum_by_more_than_one_clipped_example() -> None:
    module, (x, y) = nn.Linear(6, 3), _vectors(3000)
    whole = _found(module, x * 50, y, 0.01)
    without = _found(module, x[1:] * 50, y[1:], 0.01)
    # In float32 the sum of 3,000 is off by up to 1.8e-4 of C an example.
    assert np.linalg.norm(whole - without) <= 0.01 * (1 - 2**-10) * (1 + 1e-5)
