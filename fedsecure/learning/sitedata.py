"""One site's rows as training takes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsecure.errors import DataError
from fedsecure.trainer import JSON

Task = Literal["binary", "multiclass", "regression"]
Features = NDArray[np.float32]
Targets = NDArray[np.int64] | NDArray[np.float32]
Users = NDArray[np.int64]
"""Number of the person behind each row, shape (n,), int64, from 0, none left out."""


@dataclass(frozen=True, slots=True)
class SiteData:
    """Training and test rows of one site; checked when made.

    Attributes
    ----------
    train_x, test_x : array
        Shape (n, *input_shape), float32, finite.
    train_y, test_y : array
        Shape (n,); int64 classes from 0, or float32 for a regression.
    task : str
        `binary`, `multiclass` or `regression`.
    outputs : int
        Numbers the model gives per row: 1, or the number of classes if multiclass.
    input_shape : tuple of int
    description : mapping
        Where the rows come from and what was done to them; stays at the site.
    public_rows : int or None
        Rows over all sites, where that number is public; None where it is not.
    train_users : array or None
        See `Users`; of this site alone: one person at two sites is two numbers. None
        where every row is a unit of its own.
    """

    train_x: Features
    train_y: Targets
    test_x: Features
    test_y: Targets
    task: Task
    outputs: int
    input_shape: tuple[int, ...]
    description: Mapping[str, JSON] = field(default_factory=dict)
    public_rows: int | None = None
    train_users: Users | None = None

    @property
    def users(self) -> int:
        """Return the persons behind the training rows; 0 where none are told apart."""
        return 0 if self.train_users is None else int(self.train_users.max()) + 1

    @property
    def name(self) -> str:
        """Name of the data set, for reports."""
        return str(self.description.get("name", "rows"))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines of the description."""
        return tuple(f"{key}: {value}" for key, value in self.description.items())

    def digest(self) -> bytes:
        """Return SHA-256 of the training rows; 32 bytes, never to leave the site."""
        whole = hashlib.sha256(self.train_x.tobytes())
        whole.update(self.train_y.tobytes())
        if self.train_users is not None:
            whole.update(self.train_users.tobytes())
        return whole.digest()

    def __post_init__(self) -> None:
        """Refuse rows of another shape, type or range, and a site without rows."""
        if self.task not in get_args(Task):
            raise DataError(
                f"task={self.task!r}, choose one of: {', '.join(get_args(Task))}"
            )
        if len(self.train_x) == 0:
            raise DataError("the site has no training rows: it cannot take part")
        if (self.task == "multiclass") != (self.outputs > 1) or self.outputs < 1:
            raise DataError(f"task {self.task} does not have {self.outputs} outputs")
        _check_part("train", self.train_x, self.train_y, self)
        _check_part("test", self.test_x, self.test_y, self)
        if self.train_users is not None:
            _check_users(self.train_users, len(self.train_x))


def pool(parts: Sequence[SiteData]) -> SiteData:
    """Return all sites' rows as one site's: training with training, test with test.

    A person at two sites stays two: nothing here tells that they are one.
    """
    first = parts[0]
    description: dict[str, JSON] = {**first.description, "pooled_sites": len(parts)}
    return SiteData(
        np.concatenate([part.train_x for part in parts]),
        np.concatenate([part.train_y for part in parts]),
        np.concatenate([part.test_x for part in parts]),
        np.concatenate([part.test_y for part in parts]),
        first.task,
        first.outputs,
        first.input_shape,
        description,
        first.public_rows,
        _pooled_users(parts),
    )


def _pooled_users(parts: Sequence[SiteData]) -> Users | None:
    """Return the persons' numbers, counted on site after site."""
    offset, numbers = 0, []
    for part in parts:
        if part.train_users is None:
            return None
        numbers.append(part.train_users + offset)
        offset += part.users
    return np.concatenate(numbers)


def _check_users(users: Users, rows: int) -> None:
    if users.dtype != np.int64 or users.shape != (rows,):
        raise DataError(
            f"train users are {users.dtype} {users.shape}, must be int64 ({rows},)"
        )
    found = np.unique(users)
    if not np.array_equal(found, np.arange(len(found))):
        raise DataError(
            f"train users run from {users.min()} to {users.max()} and are {len(found)} "
            "different ones: number them from 0, none left out"
        )


def _check_part(part: str, x: Features, y: Targets, data: SiteData) -> None:
    if x.dtype != np.float32 or x.shape != (len(x), *data.input_shape):
        raise DataError(
            f"{part} rows are {x.dtype} {x.shape}, must be float32 "
            f"(n, {', '.join(map(str, data.input_shape))})"
        )
    wanted = np.float32 if data.task == "regression" else np.int64
    if y.dtype != wanted or y.shape != (len(x),):
        raise DataError(
            f"{part} targets are {y.dtype} {y.shape}, must be {np.dtype(wanted)} "
            f"({len(x)},)"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{part} rows hold NaN or Inf: remove or replace them")
    classes = 2 if data.task == "binary" else data.outputs
    if data.task != "regression" and len(y) and not 0 <= y.min() <= y.max() < classes:
        raise DataError(
            f"{part} classes run from {y.min()} to {y.max()}, must be 0 to "
            f"{classes - 1}"
        )
