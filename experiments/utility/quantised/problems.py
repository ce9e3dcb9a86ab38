"""Data sets dealt to sites, the models trained on them, and for how long."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedsecure.learning.datasets import load_site
from fedsecure.learning.partitions import Partition, partition
from fedsecure.learning.sitedata import SiteData

SITES = 5
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian: dataset-fashion-mnist


@dataclass(frozen=True)
class Problem:
    """A data set dealt to sites, a model, and how long it trains."""

    name: str
    model: dict[str, Any]
    train: dict[str, Any]
    rounds: int
    parts: list[SiteData]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


def dealt(
    x: NDArray[np.float32], y: NDArray[np.int64], rows: NDArray[np.int64], seed: int
) -> list[SiteData]:
    """Deal training rows to sites of uneven sizes and labels."""
    how = Partition("dirichlet", SITES, seed=seed, alpha=1.0)
    empty_x, empty_y = x[:1], y[:1]
    return [
        SiteData(
            x[rows[part]],
            y[rows[part]],
            empty_x,
            empty_y,
            "multiclass",
            10,
            (x.shape[1],),
        )
        for part in partition(y[rows], how)
    ]


def digits(seed: int) -> Problem:
    """Return the digits as the product loads them, each less its own mean."""
    whole = load_site({"name": "digits", "partition": "iid"}, 0, 1)
    x = np.concatenate([whole.train_x, whole.test_x])
    y = np.concatenate([whole.train_y, whole.test_y]).astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    test, rows = order[:360], order[360:]
    return Problem(
        "digits",
        {"name": "logistic"},
        {"epochs": 1, "batch_size": 32, "learning_rate": 0.5},
        20,
        dealt(x, y, rows, seed),
        x[test],
        y[test],
    )


def mnist_size(seed: int, images: str, count: int, rounds: int) -> Problem:
    x, y, test_x, test_y = fashion() if images == "fashion" else digits28(seed)
    rows = np.random.default_rng(seed).permutation(len(y))[:count]
    return Problem(
        "mnist_size",
        {"name": "mlp", "hidden": [128]},
        {"epochs": 1, "batch_size": 32, "learning_rate": 0.1},
        rounds,
        dealt(x, y, rows, seed),
        test_x,
        test_y,
    )


def fashion() -> tuple[Any, Any, Any, Any]:
    """Read Fashion-MNIST (Zalando, MIT licence): 28 x 28, 10,000 test rows."""

    def read(name: str, offset: int) -> NDArray[np.uint8]:
        with gzip.open(FASHION / f"{name}.gz") as handle:
            return np.frombuffer(handle.read(), dtype=np.uint8, offset=offset)

    def part(name: str) -> tuple[Any, Any]:
        x = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)
        return (x / 255).astype(np.float32), read(
            f"{name}-labels-idx1-ubyte", 8
        ).astype(np.int64)

    return (*part("train"), *part("t10k"))


def digits28(seed: int) -> tuple[Any, Any, Any, Any]:
    """Return the 8 x 8 digits, each pixel as 3 x 3, with a margin of 2."""
    x, y = load_digits(return_X_y=True)
    large = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((3, 3)))
    padded = np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    x, y = padded.astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    test, rows = order[:360], order[360:]
    return x[rows], y[rows], x[test], y[test]
