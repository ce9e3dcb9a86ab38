"""Features that are the target in disguise: a model that scores 1.0 learnt nothing."""

from collections.abc import Collection, Sequence
from itertools import accumulate

import numpy as np

from fedsecure.errors import DataError
from fedsecure.learning.schema import Column
from fedsecure.learning.sitedata import Features, Targets, Task

LIMIT = 0.999
_LEAST_ROWS = 20  # below that a perfect fit is nothing unusual


def check_copies(
    x: Features,
    y: Targets,
    widths: Sequence[int],
    columns: Sequence[Column],
    task: Task,
    allow: Collection[str],
) -> None:
    """Refuse a feature that alone tells the target, unless it is allowed by name.

    Parameters
    ----------
    x, y : array
        Shapes (n, sum(widths)) and (n,).
    widths : sequence of int
        Numbers that each of `columns` became.

    Raises
    ------
    DataError
        Correlation with the target, or accuracy of the best guess by category, above
        `LIMIT`.
    """
    if len(y) < _LEAST_ROWS or len(np.unique(y)) < 2:
        return
    ends = accumulate(widths)
    for column, width, end in zip(columns, widths, ends, strict=True):
        part = x[:, end - width : end]
        share = _accuracy(part, y) if _by_category(column, task) else _relation(part, y)
        if share > LIMIT and column.name not in allow:
            raise DataError(
                f'feature "{column.name}" tells the target almost perfectly '
                f"({share:.4f}, limit {LIMIT}): it may be a copy; give it the role "
                f'drop, or say data.allow=["{column.name}"] if it is known in advance'
            )


def _by_category(column: Column, task: Task) -> bool:
    return bool(column.categories) and task != "regression"


def _accuracy(part: Features, y: Targets) -> float:
    """Return how often the commonest class of its category is a row's class.

    Zero where one class is almost all: any feature would seem a copy then.
    """
    classes, labels = np.unique(y, return_inverse=True)
    if np.bincount(labels).max() > 0.99 * len(y):
        return 0.0
    _, groups = np.unique(part, axis=0, return_inverse=True)
    counts = np.zeros((groups.max() + 1, len(classes)), dtype=np.int64)
    np.add.at(counts, (groups.ravel(), labels.ravel()), 1)
    return float(counts.max(axis=1).sum() / len(y))


def _relation(part: Features, y: Targets) -> float:
    """Return the largest absolute correlation of a column with the target."""
    wide, target = part.astype(np.float64), y.astype(np.float64)
    wide, target = wide - wide.mean(axis=0), target - target.mean()
    scale = np.sqrt((wide**2).sum(axis=0) * (target**2).sum())
    products = np.abs(target @ wide)
    return float(
        np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0).max()
    )
