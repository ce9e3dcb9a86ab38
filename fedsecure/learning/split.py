"""Test rows of one site: stratified, grouped, and the same each time."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsecure.learning.centring import centred
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.learning.sitedata import Features, SiteData, Targets, Task, Users
from fedsecure.trainer import JSON

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be learnt from rows, whichever site holds them; see `SiteData`."""

    task: Task
    outputs: int
    description: Mapping[str, JSON]
    public_rows: int | None = None


def divide(
    x: Features, y: Targets, keys: Sequence[str], config: DataConfig, problem: Problem
) -> SiteData:
    """Return one site's rows, divided into training and test, centred if so asked.

    Parameters
    ----------
    x, y : array
        Shapes (n, *input_shape) and (n,).
    keys : sequence of str
        Length n; rows of one key stay on one side. Persons, if `user_column` is set.

    Raises
    ------
    DataError
        No rows, or rows that do not fit the problem, or that cannot be centred.
    """
    description: dict[str, JSON] = dict(problem.description)
    if config.centred:
        x = centred(x)
        how = description.get("normalisation", "as given")
        description["normalisation"] = f"{how}; each row less its own mean"
    none = np.zeros(len(y), dtype=np.int64)
    classes = none if problem.task == "regression" else y.astype(np.int64)
    test = held_out(classes, keys, config.test_fraction, config.seed)
    users = _numbered(keys, ~test) if config.user_column else None
    return SiteData(
        x[~test],
        y[~test],
        x[test],
        y[test],
        problem.task,
        problem.outputs,
        x.shape[1:],
        description,
        problem.public_rows,
        users,
    )


def _numbered(keys: Sequence[str], chosen: Mask) -> Users:
    """Return a number for each different key of the chosen rows, from 0."""
    mine = np.array(keys)[chosen]
    return np.unique(mine, return_inverse=True)[1].astype(np.int64)


def held_out(
    classes: NDArray[np.int64], keys: Sequence[str], fraction: float, seed: int
) -> Mask:
    """Return which rows are for testing, shape (n,), bool.

    A row's place depends on its key and the seed only (HMAC-SHA256), so that rows added
    later do not move the others from train to test by chance alone. Rows of one key,
    one person for instance, stay on one side. Each class gives its share, rounded; at
    least one row stays for training and, if `fraction` is above 0 and there are two
    keys, one is for testing.

    Parameters
    ----------
    classes : array
        Shape (n,), int64; all zero where there are none.
    keys : sequence of str
        Length n.
    fraction : float
        From 0 to below 1.
    """
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    order = sorted(first, key=lambda key: _place(seed, key))
    chosen: set[str] = set()
    for kind in np.unique(classes):
        group = [key for key in order if classes[first[key]] == kind]
        chosen.update(group[: int(fraction * len(group) + 0.5)])
    if not chosen and fraction > 0 and len(order) > 1:
        chosen.add(order[0])
    if len(chosen) == len(order):
        chosen.discard(order[-1])
    return np.fromiter((key in chosen for key in keys), dtype=bool, count=len(keys))


def _place(seed: int, key: str) -> bytes:
    return hmac.digest(str(seed).encode(), key.encode(), "sha256")
