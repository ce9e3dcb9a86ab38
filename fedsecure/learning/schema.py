"""The public description of a table: roles, types, bounds and categories of columns.

The same file lies at every site. Nothing in it may come from a site's rows unless the
steward says so: a drafted bound carries a mark until then (DATA.md section 5).
"""

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedsecure.errors import DataError

MARK = "# from your data: not public until you say so"
ROLES = ("feature", "target", "site", "id", "drop")
TYPES = ("numeric", "binary", "categorical", "date")
OTHER = "other"
"""The category that takes unknown ones, where it is declared."""
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the schema declares it.

    Attributes
    ----------
    name, role, type : str
        See `ROLES` and `TYPES`; type is empty for `site`, `id` and `drop`.
    bounds : tuple of float
        Lowest and highest value; of dates in days (`datetime.date.toordinal`).
    categories : tuple of str
        In the order of their classes or columns; two for `binary`, the second is 1.
    missing : str
        `error`, `constant:<value>`, or `indicator`: a column more, 1 where it misses.
    outside : str
        `error` or `clip`: what happens to a number out of bounds.
    unit : str
        For people.
    """

    name: str
    role: str = "feature"
    type: str = ""
    bounds: tuple[float, float] = (0.0, 0.0)
    categories: tuple[str, ...] = ()
    missing: str = "error"
    outside: str = "error"
    unit: str = ""

    @property
    def constant(self) -> str | None:
        """The value that stands in for a missing one, if the policy is a constant."""
        word, _, value = self.missing.partition(":")
        return value if word == "constant" else None


@dataclass(frozen=True, slots=True)
class Schema:
    """All columns, in the order in which the features are laid out.

    Attributes
    ----------
    columns : tuple of Column
    digest : str
        SHA-256 of the file, hex: sites compare it.
    """

    columns: tuple[Column, ...]
    digest: str

    @property
    def features(self) -> tuple[Column, ...]:
        """Columns that the model reads."""
        return tuple(c for c in self.columns if c.role == "feature")

    @property
    def target(self) -> Column:
        """The column to be predicted."""
        return next(c for c in self.columns if c.role == "target")

    def named(self, role: str) -> str | None:
        """Return the name of the one column of a role, if there is one."""
        return next((c.name for c in self.columns if c.role == role), None)


def read_schema(path: Path, *, strict: bool) -> Schema:
    """Read a schema file (YAML 1.2, where ``no`` is a word).

    Parameters
    ----------
    strict : bool
        Refuse a draft whose marks were not removed.

    Raises
    ------
    DataError
        Unreadable, malformed, or still a draft.
    """
    try:
        data = path.read_bytes()[: _MAX_BYTES + 1]
        text = data.decode()
    except (OSError, UnicodeDecodeError) as bad:
        raise DataError(f"schema {path} cannot be read: {bad}") from bad
    if len(data) > _MAX_BYTES:
        raise DataError(f"schema {path} is larger than {_MAX_BYTES} bytes")
    return parse_schema(text, path.name, strict=strict)


def parse_schema(text: str, where: str, *, strict: bool) -> Schema:
    """Return the schema that a text describes; see `read_schema`."""
    if strict:
        _refuse_marks(text, where)
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as bad:
        raise DataError(f"{where} is not YAML: {bad}") from bad
    entries = document.get("columns") if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or set(document) != {"columns"}:
        raise DataError(f"{where}: must hold one list, named columns, and nothing else")
    columns = tuple(_column(entry, where) for entry in entries)
    _check_roles(columns, where)
    return Schema(columns, hashlib.sha256(text.encode()).hexdigest())


def read_date(text: str) -> float:
    """Return the day number of an ISO 8601 date.

    Raises
    ------
    ValueError
        If it is none.
    """
    return float(date.fromisoformat(text).toordinal())


def _refuse_marks(text: str, where: str) -> None:
    lines = [n for n, line in enumerate(text.splitlines(), 1) if MARK in line]
    if lines:
        shown = ", ".join(map(str, lines[:5]))
        raise DataError(
            f"{where}: line {shown} still says {MARK!r} ({len(lines)} in all): a bound "
            "read from rows tells of the rows; put public numbers and remove the marks"
        )


def _column(entry: Any, where: str) -> Column:
    """Return one checked column."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise DataError(f"{where}: column {entry!r} is not a mapping with a name")
    at = f"{where}: column {entry['name']!r}"
    unknown = sorted(map(str, set(entry) - {field.name for field in fields(Column)}))
    if unknown:
        raise DataError(f"{at}: unknown keys {unknown}")
    role = _choice(entry.get("role", "feature"), ROLES, f"{at}: role")
    learnt = role in {"feature", "target"}
    kind = _choice(entry.get("type"), TYPES, f"{at}: type") if learnt else ""
    column = Column(
        name=entry["name"],
        role=role,
        type=kind,
        bounds=_bounds(entry, at) if kind in {"numeric", "date"} else (0.0, 0.0),
        categories=_categories(entry, kind, at),
        missing=str(entry.get("missing", "error")),
        outside=_choice(entry.get("outside", "error"), ("error", "clip"), at),
        unit=str(entry.get("unit", "")),
    )
    _check_missing(column, at)
    return column


def _choice(value: object, options: tuple[str, ...], at: str) -> str:
    if value not in options:
        raise DataError(f"{at} {value!r}: choose one of: {', '.join(options)}")
    return str(value)


def _bounds(entry: Mapping[str, Any], at: str) -> tuple[float, float]:
    bounds = entry.get("bounds")
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise DataError(f"{at}: bounds {bounds!r}, must be [lowest, highest]")
    low, high = (_bound(value, at) for value in bounds)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DataError(f"{at}: bounds {bounds}, must be finite and rising")
    return low, high


def _bound(value: object, at: str) -> float:
    if isinstance(value, date):
        return float(value.toordinal())
    if isinstance(value, str):
        with suppress(ValueError):
            return read_date(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{at}: bound {value!r} is neither a number nor a date")
    return float(value)


def _categories(entry: Mapping[str, Any], kind: str, at: str) -> tuple[str, ...]:
    if kind not in {"binary", "categorical"}:
        if "categories" in entry:
            raise DataError(f"{at}: categories do nothing for type {kind or 'none'!r}")
        return ()
    values = entry.get("categories")
    if not isinstance(values, list) or any(
        isinstance(v, bool) or not isinstance(v, str | int | float) for v in values
    ):
        raise DataError(
            f"{at}: categories {values!r}, must be a list of texts; quote true, false"
        )
    names = tuple(map(str, values))
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{at}: categories {names}, must be at least 2 different ones")
    if kind == "binary" and len(names) != 2:
        raise DataError(f"{at}: binary has 2 categories, not {len(names)}")
    return names


def _check_missing(column: Column, at: str) -> None:
    value = column.constant
    if column.missing not in {"error", "indicator"} and value is None:
        raise DataError(
            f"{at}: missing {column.missing!r}: choose error, indicator or "
            "constant:<value>"
        )
    if column.role == "target" and column.missing != "error":
        raise DataError(
            f"{at}: a missing target cannot be made up: missing must be error"
        )
    if value is not None and column.categories and value not in column.categories:
        raise DataError(f"{at}: missing {column.missing!r} is not among the categories")


def _check_roles(columns: tuple[Column, ...], where: str) -> None:
    names = [c.name for c in columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{where}: columns {twice} are described twice")
    for role, least in (("target", 1), ("site", 0), ("id", 0)):
        found = [c.name for c in columns if c.role == role]
        if not least <= len(found) <= 1:
            wanted = "exactly one" if least else "at most one"
            raise DataError(
                f"{where}: role {role} is given to {found}, wanted {wanted}"
            )
    if not any(c.role == "feature" for c in columns):
        raise DataError(f"{where}: no column has the role feature")
