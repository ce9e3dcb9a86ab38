"""Convolutions of all kinds against torch.func."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsecure.privacy.gradients import convolution, gram
from fedsecure.privacy.gradients.clipped import ClippedGradients
from tests.fakes.oracle import by_vmap, distance, each_loss, rows_of

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.Conv1d(2, 3, 3), (2, 9)),
    "1d in all options": (
        lambda: nn.Conv1d(4, 6, 3, stride=2, padding=3, dilation=2, groups=2),
        (4, 11),
    ),
    "2d": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 5)),
    "2d without bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 6, 5)),
    "2d oblong": (
        lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 3)),
        (2, 7, 6),
    ),
    "2d same": (lambda: nn.Conv2d(2, 2, 4, padding="same", dilation=2), (2, 6, 6)),
    "2d valid": (lambda: nn.Conv2d(2, 2, 3, padding="valid"), (2, 6, 6)),
    "2d depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), (4, 5, 5)),
    "2d circular": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        (2, 5, 5),
    ),
    "2d reflected": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        (2, 5, 5),
    ),
    "3d": (lambda: nn.Conv3d(2, 3, 2), (2, 4, 3, 4)),
    "3d in all options": (
        lambda: nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding=1, dilation=2, groups=2),
        (2, 4, 5, 4),
    ),
}


def _checked(module: nn.Module, x: Tensor, y: Tensor, bound: float) -> None:
    for clip in (1e-2, 1e4):
        gradients = ClippedGradients(module, each_loss, clip, "bookkeeping")
        found = gradients.sum(x, y)
        gradients.close()
        assert distance(found, by_vmap(module, x, y, clip)) <= bound


@pytest.mark.parametrize("way", ["product", "gram"])
@pytest.mark.parametrize(
    ("kind", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize("name", CASES)
def test_convolution_gives_the_oracles_sum(
    name: str,
    kind: torch.dtype,
    bound: float,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution, "prefers_gram", lambda *_: way == "gram")
    make, shape = CASES[name]
    torch.manual_seed(1)
    x, y = rows_of(shape, 6)
    _checked(make().to(kind), x.to(kind), y, bound)


def test_blocks_of_patches_do_not_change_the_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution, "_BLOCK_FLOATS", 200)
    x, y = rows_of((2, 6, 6), 7)
    _checked(nn.Conv2d(2, 3, 3).double(), x.double(), y, 1e-10)


def test_many_weights_on_few_positions_go_by_gram() -> None:
    module = nn.Conv2d(64, 128, 3, padding=1)
    assert gram.prefers_gram(4, 64 * 9, 128)
    x, y = rows_of((64, 2, 2), 5)
    _checked(module, x, y, 1e-5)


@settings(max_examples=30)
@given(
    channels=st.integers(1, 2),
    out=st.integers(2, 3),
    groups=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    around=st.tuples(st.integers(0, 2), st.integers(1, 2)),
    dimensions=st.integers(1, 3),
    size=st.integers(5, 6),
)
def test_convolution_of_any_shape_gives_the_oracles_sum(
    channels: int,
    out: int,
    groups: int,
    kernel: int,
    stride: int,
    around: tuple[int, int],
    dimensions: int,
    size: int,
) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    torch.manual_seed(size)
    module = kind(
        channels * groups, out * groups, kernel, stride, *around, groups
    ).double()
    x, y = rows_of((channels * groups, *[size] * dimensions), 3)
    _checked(module, x.double(), y, 1e-10)
