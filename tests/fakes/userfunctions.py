"""What a user may name in local configuration: data sets and models, sound and not."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsecure.learning.sitedata import SiteData

Rows = tuple[NDArray[np.float64], NDArray[np.int64] | NDArray[np.float64]]

NUMBER = 3


def site_data(index: int, sites: int) -> SiteData:
    x = np.full((4, 2), index, dtype=np.float32)
    y = np.array([0, 1, 0, 1])
    return SiteData(x, y, x[:2], y[:2], "binary", 1, (2,), {"sites": sites})


def classes(index: int, sites: int) -> Rows:
    generator = np.random.default_rng(index)
    return generator.normal(size=(20, 3)), np.arange(20) % 3


def numbers(index: int, sites: int) -> Rows:
    generator = np.random.default_rng(index)
    x = generator.normal(size=(50, 3))
    return x, x @ np.array([1.0, -1.0, 0.5])


def misshapen(index: int, sites: int) -> Rows:
    return np.zeros((4, 2)), np.zeros(3)


def words(index: int, sites: int) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    return np.zeros((2, 2)), np.array(["ill", "well"])


def nothing(index: int, sites: int) -> None:
    return None


def raises(index: int, sites: int) -> None:
    raise OSError("the disk is gone")


def dropout_model(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    first = nn.Linear(input_shape[0], 16)
    return nn.Sequential(
        nn.Flatten(), first, nn.ReLU(), nn.Dropout(), nn.Linear(16, outputs)
    )


def half_frozen_model(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    model = nn.Sequential(nn.Linear(input_shape[0], 4), nn.Linear(4, outputs))
    model[0].requires_grad_(requires_grad=False)
    return model


def batch_norm_model(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(input_shape[0]), nn.Linear(input_shape[0], outputs)
    )


def no_model(input_shape: tuple[int, ...], outputs: int) -> int:
    return outputs


class _Counting(nn.Module):
    """Remembers rows in a buffer: what must not leave, and would be lost."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.seen: Tensor
        self.register_buffer("seen", self.linear.weight.new_zeros(()))

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            self.seen += rows.sum()
        found: Tensor = self.linear(rows)
        return found


def counting_model(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return _Counting(input_shape[0], outputs)


def prelu_model(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(input_shape[0], 4), nn.PReLU(), nn.Linear(4, outputs)
    )


class _Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, rows: Tensor) -> Tensor:
        raise ZeroDivisionError("a user's mistake")


def failing_model(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return _Failing()
