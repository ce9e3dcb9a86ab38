"""A first schema, guessed from a site's own rows: a local aid, marked until checked."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from fedsecure.errors import DataError
from fedsecure.learning.columns import NUMBER
from fedsecure.learning.csvfile import CsvFile, lines
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.learning.schema import MARK, read_date

_MANY = 20  # more different texts than this are no categories
_MAX_CLASSES = 1000
_IDS = frozenset({"id", "pid", "patient_id", "person_id", "record_id", "unit"})


@dataclass(slots=True)
class Seen:
    """What the cells of one column have in common so far."""

    name: str
    most: int = _MANY
    missing: bool = False
    numeric: bool = True
    dates: bool = True
    low: float = float("inf")
    high: float = float("-inf")
    values: set[str] = field(default_factory=set)

    def add(self, cell: str) -> None:
        """Take one cell that holds a value."""
        self.numeric = self.numeric and NUMBER.fullmatch(cell) is not None
        if self.numeric:
            self._widen(float(cell))
        self.dates = self.dates and not self.numeric and _is_date(cell)
        if self.dates:
            self._widen(read_date(cell))
        if len(self.values) <= self.most:
            self.values.add(cell)

    def _widen(self, value: float) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)

    @property
    def categories(self) -> list[str]:
        """Different values, numbers by size, or nothing if they are too many."""
        if len(self.values) > self.most:
            return []
        return sorted(self.values, key=float if self.numeric else str)


def draft(files: Sequence[CsvFile], config: DataConfig) -> str:
    """Return the text of a schema that fits the rows of all files.

    Parameters
    ----------
    config : DataConfig
        `target` empty stands for the last column; `task` empty is guessed too.

    Raises
    ------
    DataError
        The files' columns differ, or the target is not among them.
    """
    header = files[0].header
    for file in files:
        if file.header != header:
            raise DataError(
                f"{file.path.name} has other columns than {files[0].path.name}: write "
                "a schema for the columns they share"
            )
    target = config.target or header[-1]
    files[0].position(target, "target")
    classes = _MAX_CLASSES if config.task == "classification" else _MANY
    seen = [Seen(name, classes if name == target else _MANY) for name in header]
    for file in files:
        _look(file, seen, config)
    ids = [n for n in header if n.lower() in _IDS and n != target]
    key = config.user_column or next(iter(ids), "")
    blocks = [_block(column, target, key, config) for column in seen]
    head = "# Drafted. The same file must lie at every site; YAML 1.2."
    return "\n".join([head, "columns:", *blocks, ""])


def _look(file: CsvFile, seen: Sequence[Seen], config: DataConfig) -> None:
    absent = frozenset(config.missing)
    for _, cells in lines(file, config):
        for column, cell in zip(seen, map(str.strip, cells), strict=True):
            if cell in absent:
                column.missing = True
            else:
                column.add(cell)


def _block(seen: Seen, target: str, key: str, config: DataConfig) -> str:
    """Return one column's lines."""
    entry = [f"  - name: {json.dumps(seen.name, ensure_ascii=False)}"]
    if seen.name == target:
        entry += ["role: target", *_described(seen, config.task, target=True)]
    elif seen.name == config.site_column:
        entry.append("role: site")
    elif seen.name == key:
        entry.append("role: id")
    elif config.user_column and seen.name.lower() in _IDS:
        entry.append("role: drop  # a record's name; data.user_column is the person's")
    else:
        kind = _described(seen, "", target=False)
        entry += ["role: feature", *kind] if kind else ["role: drop  # no use seen"]
        if kind and seen.missing:
            entry.append("missing: indicator")
    return "\n    ".join(entry)


def _described(seen: Seen, task: str, *, target: bool) -> list[str]:
    """Return type and bounds or categories; nothing for what cannot be learnt from."""
    listed = seen.categories
    numbers = seen.numeric and seen.low < seen.high
    if numbers and (task == "regression" or not _classes(listed, task, target=target)):
        return ["type: numeric", f"bounds: {_pair(seen.low, seen.high)}  {MARK}"]
    if seen.dates and seen.low < seen.high and not target:
        days = [date.fromordinal(int(day)) for day in (seen.low, seen.high)]
        return ["type: date", f"bounds: [{days[0]}, {days[1]}]  {MARK}"]
    if len(listed) < 2:
        if target:
            raise DataError(
                f'target "{seen.name}" has {len(seen.values)} different values: too '
                "few or too many for classes; say what it is in a schema"
            )
        return []
    kind = "binary" if len(listed) == 2 else "categorical"
    names = json.dumps(listed, ensure_ascii=False)
    return [f"type: {kind}", f"categories: {names}  {MARK}"]


def _classes(values: Iterable[str], task: str, *, target: bool) -> bool:
    """Tell whether a column of numbers is one of classes."""
    found = list(values)
    if not target:
        return len(found) == 2
    whole = all(float(value).is_integer() for value in found)
    return bool(found) and (task == "classification" or whole)


def _pair(low: float, high: float) -> str:
    return f"[{low!r}, {high!r}]"


def _is_date(cell: str) -> bool:
    try:
        read_date(cell)
    except ValueError:
        return False
    return True
