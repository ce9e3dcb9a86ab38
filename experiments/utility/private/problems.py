"""Data dealt to five sites, a linear model, and its clipped sums as one product."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsecure.learning.datasets import load_site
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.training import LocalTrainer
from fedsecure.privacy.mechanism import clip_factors
from fedsecure.trainer import JSON
from fedsecure.update import Vector

SITES = 5
DELTA = 1e-5
ROWS = {"digits": 1437.0, "breast_cancer": 455.0}
"""Public: four fifths of data sets whose sizes are printed in every textbook."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Inputs with a column of ones, (n, inputs + 1), and classes, (n,)."""

    x: Matrix
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def taken(self, mask: NDArray[np.bool_]) -> "Rows":
        return Rows(self.x[mask], self.y[mask])


@dataclass(frozen=True)
class Problem:
    """One split: sites' rows, their test rows together, and the first model."""

    name: str
    split: int
    data: list[SiteData]
    sites: list[Rows]
    test: Rows
    first: Vector
    outputs: int

    @property
    def pooled(self) -> Rows:
        return _joined(self.sites)

    def clipped_sum(self, model: Vector, rows: Rows, clip: float) -> Vector:
        """Return the sum of clipped per-example gradients, layout weight, bias.

        The gradient of a linear model is an outer product, so its norm is a product.
        """
        slopes = self._slopes(model, rows)
        norms = np.linalg.norm(slopes, axis=1) * np.linalg.norm(rows.x, axis=1)
        factors = clip_factors(norms, clip)
        return _flat((slopes * factors[:, None]).T @ rows.x)

    def gradient(self, model: Vector, rows: Rows) -> Vector:
        """Return the mean gradient, not clipped."""
        return _flat(self._slopes(model, rows).T @ rows.x) / len(rows)

    def accuracy(self, model: Vector) -> float:
        """Return the share of test rows that are right, in percent."""
        scores = self._scores(model, self.test)
        found = scores.argmax(1) if self.outputs > 1 else (scores[:, 0] > 0) + 0
        return 100 * float((found == self.test.y).mean())

    def _scores(self, model: Vector, rows: Rows) -> Matrix:
        inputs = rows.x.shape[1] - 1
        weight = model[: self.outputs * inputs].reshape(self.outputs, inputs)
        bias = model[self.outputs * inputs :]
        return np.asarray(rows.x[:, :-1] @ weight.T + bias)

    def _slopes(self, model: Vector, rows: Rows) -> Matrix:
        """Return the gradients at the outputs, (n, outputs)."""
        scores = self._scores(model, rows)
        if self.outputs == 1:
            return np.asarray(1 / (1 + np.exp(-scores)) - rows.y[:, None])
        likely = np.exp(scores - scores.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        likely[np.arange(len(rows)), rows.y] -= 1
        return np.asarray(likely)


def section(name: str, split: int) -> dict[str, JSON]:
    """Return the `data` section: rows dealt evenly, kind to arms that train alone.

    All else is the product's default: digits are centred, each image by its own mean.
    """
    return {"name": name, "partition": "iid", "seed": split}


def problem(name: str, split: int) -> Problem:
    """Return a split, as the product loads it."""
    data = [load_site(section(name, split), index, SITES) for index in range(SITES)]
    settings: dict[str, JSON] = {"model": {"name": "logistic"}, "seed": split}
    _, first = LocalTrainer(data[0]).initial(settings)
    return Problem(
        name,
        split,
        data,
        [_rows(d.train_x, d.train_y) for d in data],
        _joined([_rows(d.test_x, d.test_y) for d in data]),
        first,
        data[0].outputs,
    )


def _rows(x: NDArray[np.float32], y: NDArray[np.int64] | NDArray[np.float32]) -> Rows:
    ones = np.ones((len(x), 1))
    return Rows(np.hstack([x.astype(np.float64), ones]), y.astype(np.int64))


def _joined(parts: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
    )


def _flat(gradient: Matrix) -> Vector:
    return np.concatenate([gradient[:, :-1].ravel(), gradient[:, -1]])
