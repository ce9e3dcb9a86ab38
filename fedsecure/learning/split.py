"""Test rows of one site: each by its own key, grouped, and the same each time."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsecure.errors import DataError
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
        No rows to train on, or rows that do not fit the problem or cannot be centred.
    """
    description: dict[str, JSON] = dict(problem.description)
    if config.centred:
        x = centred(x)
        how = description.get("normalisation", "as given")
        description["normalisation"] = f"{how}; each row less its own mean"
    test = held_out(keys, config.test_fraction, config.seed)
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


def held_out(keys: Sequence[str], fraction: float, seed: int) -> Mask:
    """Return which rows are for testing, shape (n,), bool.

    A row's side follows from its key, the seed and the fraction alone (HMAC-SHA256): a
    row that comes or goes moves no other across. Were classes given equal shares, one
    row more could exchange another, and neighbouring data would differ by two training
    rows where noise hides one (docs/adr/0029). Rows of one key, one person for
    instance, stay on one side. How many are for testing is a matter of chance.

    Parameters
    ----------
    keys : sequence of str
        Length n.
    fraction : float
        From 0 to below 1: how likely a key is for testing.

    Raises
    ------
    DataError
        No row is left for training.
    """
    bound = int(fraction * 2**64)
    sides = {key: _place(seed, key) < bound for key in keys}
    if all(sides.values()):
        raise DataError(
            f"all {len(keys)} rows fall to the test side of test_fraction="
            f"{fraction:g} with data seed {seed}: none is left to train on; choose a "
            "smaller fraction"
        )
    return np.fromiter((sides[key] for key in keys), dtype=bool, count=len(keys))


def _place(seed: int, key: str) -> int:
    """Return where a key lies, uniform from 0 to below 2**64."""
    place = hmac.digest(str(seed).encode(), key.encode(), "sha256")[:8]
    return int.from_bytes(place, "big")
