"""Cells to numbers, by the schema alone: no statistic of the rows is used."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from fedsecure.learning.schema import OTHER, Column, read_date

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A decimal number; float() would also take "nan", "inf" and "1_000"."""

Values = tuple[float, ...]


class BadCell(ValueError):
    """A cell that does not fit its column; the text says why."""


@dataclass(slots=True)
class Encoder:
    """Turns a feature's cells into numbers from -1 to 1.

    Attributes
    ----------
    column : Column
    absent : collection of str
        Cells that hold no value.
    clipped : int
        Cells out of bounds that were moved to a bound so far.
    """

    column: Column
    absent: Collection[str]
    clipped: int = 0
    _convert: Callable[[str], Values] = field(init=False)

    def __post_init__(self) -> None:
        """Choose the conversion once, not for each cell."""
        self._convert = self._one_hot if self.column.categories else self._scaled
        if self.column.type == "binary":
            self._convert = self._binary

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers a cell becomes."""
        column = self.column
        several = column.type == "categorical"
        made = [f"{column.name}={c}" for c in column.categories] if several else []
        extra = [f"{column.name} missing"] if column.missing == "indicator" else []
        return (*(made or [column.name]), *extra)

    def encode(self, cell: str) -> Values:
        """Return a cell's numbers.

        Raises
        ------
        BadCell
            It is missing, of another type, out of bounds, or an unknown category.
        """
        cell = cell.strip()
        indicator = self.column.missing == "indicator"
        if cell not in self.absent:
            return (*self._convert(cell), 0.0) if indicator else self._convert(cell)
        if indicator:
            return (*[0.0] * (len(self.names) - 1), 1.0)
        constant = self.column.constant
        if constant is None:
            raise BadCell(
                f"{self.column.name} is missing ({cell!r}); the schema says missing: "
                "error"
            )
        return self._convert(constant)

    def _scaled(self, cell: str) -> Values:
        low, high = self.column.bounds
        value = number(cell, self.column)
        if not low <= value <= high:
            check_outside(cell, self.column)
            self.clipped += 1
            value = min(max(value, low), high)
        return (2 * (value - low) / (high - low) - 1,)

    def _binary(self, cell: str) -> Values:
        return (2.0 * category(cell, self.column) - 1,)

    def _one_hot(self, cell: str) -> Values:
        chosen = category(cell, self.column)
        return tuple(float(i == chosen) for i in range(len(self.column.categories)))


def number(cell: str, column: Column) -> float:
    """Return a numeric or date cell as a number.

    Raises
    ------
    BadCell
        It is not one, or not finite.
    """
    if column.type == "date":
        try:
            return read_date(cell)
        except ValueError:
            raise BadCell(
                f'{column.name} = "{cell}" is not a date like 2024-02-29'
            ) from None
    if not NUMBER.fullmatch(cell):
        raise BadCell(f'{column.name} = "{cell}" is not a number')
    value = float(cell)
    if abs(value) == float("inf"):
        raise BadCell(f'{column.name} = "{cell}" is not a finite number')
    return value


def check_outside(cell: str, column: Column) -> None:
    """Refuse a number out of bounds, unless the column says clip.

    Raises
    ------
    BadCell
    """
    if column.outside == "clip":
        return
    low, high = column.bounds
    if column.type == "date":
        raise BadCell(f"{column.name} = {cell} is outside the schema's dates")
    raise BadCell(f"{column.name} = {cell} outside [{low:g}, {high:g}]")


def category(cell: str, column: Column) -> int:
    """Return the position of a cell's category.

    Raises
    ------
    BadCell
        It is unknown, and `other` is not declared.
    """
    if cell in column.categories:
        return column.categories.index(cell)
    if OTHER in column.categories and column.role == "feature":
        return column.categories.index(OTHER)
    raise BadCell(
        f'{column.name} = "{cell}" is none of: {", ".join(column.categories)}'
    )
