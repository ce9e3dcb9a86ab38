"""Every layer of book-keeping against torch.func, alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsecure.privacy.gradients.clipped import ClippedGradients
from tests.fakes.oracle import by_vmap, distance, each_loss, rows_of

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]

CASES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (5,)),
    "linear on one position": (lambda: nn.Linear(5, 4), (1, 5)),
    "linear on short sequences, by Gram": (lambda: nn.Linear(256, 160), (3, 256)),
    "linear on long sequences, by product": (lambda: nn.Linear(5, 4), (40, 5)),
    "linear on images": (lambda: nn.Linear(5, 4), (3, 4, 5)),
    "layer norm": (lambda: nn.LayerNorm(6), (6,)),
    "layer norm on sequences": (lambda: nn.LayerNorm(6), (4, 6)),
    "layer norm of two dimensions": (lambda: nn.LayerNorm((3, 6)), (2, 3, 6)),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), (4, 6)),
    "rms norm": (lambda: nn.RMSNorm(6), (4, 6)),
    "rms norm with eps": (lambda: nn.RMSNorm(6, eps=0.1), (6,)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    "group norm of vectors": (lambda: nn.GroupNorm(2, 6), (6,)),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 4, 4)),
}
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def _found(module: nn.Module, x: Tensor, y: Tensor, clip: float) -> Tensor:
    gradients = ClippedGradients(module, each_loss, clip, "bookkeeping")
    try:
        return torch.from_numpy(gradients.sum(x, y))
    finally:
        gradients.close()


def _checked(module: nn.Module, x: Tensor, y: Tensor, bound: float) -> None:
    for clip in (1e-2, 1e4):
        found = _found(module, x, y, clip).numpy()
        assert distance(found, by_vmap(module, x, y, clip)) <= bound


@pytest.mark.parametrize(("kind", "bound"), PRECISIONS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_layer_gives_the_oracles_sum(
    name: str, kind: torch.dtype, bound: float
) -> None:
    make, shape = CASES[name]
    torch.manual_seed(1)
    x, y = rows_of(shape, 7)
    _checked(make().to(kind), x.to(kind), y, bound)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize(
    "name", ["linear", "linear on images", "layer norm", "group norm"]
)
def test_frozen_half_of_a_layer_is_left_out(name: str, frozen: str) -> None:
    make, shape = CASES[name]
    module = make().double()
    getattr(module, frozen).requires_grad_(requires_grad=False)
    x, y = rows_of(shape, 5)
    _checked(module, x.double(), y, 1e-10)


def _tokens(count: int, positions: int, words: int) -> tuple[Tensor, Tensor]:
    x, y = rows_of((positions,), count)
    return (x.abs() * words).long() % words, y


@pytest.mark.parametrize(("kind", "bound"), PRECISIONS, ids=["float32", "float64"])
@pytest.mark.parametrize("padding", [None, 0, -1])
@pytest.mark.parametrize("positions", [1, 9])
def test_embedding_gives_the_oracles_sum(
    padding: int | None, positions: int, kind: torch.dtype, bound: float
) -> None:
    module = nn.Embedding(4, 3, padding_idx=padding).to(kind)
    _checked(module, *_tokens(8, positions, 4), bound)


def test_slopes_of_a_repeated_index_add_before_the_norm() -> None:
    module = nn.Embedding(4, 3).double()
    x = torch.tensor([[2, 2, 2, 2]])
    # The mean of a word's four copies has the gradient of one copy: norms by position
    # would be half of it.
    found = _found(module, x, torch.tensor([1]), 1e-3)
    assert float(found.norm()) == pytest.approx(1e-3 * (1 - 2**-10), rel=1e-9)


def test_padding_word_is_not_trained() -> None:
    module = nn.Embedding(4, 3, padding_idx=1)
    found = _found(module, *_tokens(20, 5, 4), 1.0).view(4, 3)
    assert np.count_nonzero(found[1]) == 0
    assert np.count_nonzero(found) == 9


@settings(max_examples=30)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=2),
    into=st.integers(1, 6),
    out=st.integers(1, 6),
    count=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_linear_of_any_shape_gives_the_oracles_sum(
    shape: list[int], into: int, out: int, count: int, seed: int
) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(into, out), nn.Linear(out, 3)).double()
    x, y = rows_of((*shape, into), count, seed)
    _checked(module, x.double(), y, 1e-10)


def test_words_of_no_finite_example_add_the_zero_vector() -> None:
    head = nn.Linear(6, 3)
    nn.init.constant_(head.weight, float("nan"))
    layer = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), head)
    words = torch.ones(4, 2, dtype=torch.long)
    assert not _found(layer, words, torch.zeros(4).long(), 1.0).any()
