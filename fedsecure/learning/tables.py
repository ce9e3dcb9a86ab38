"""Bring your own CSV: one file per site, or one file and a column that names the site.

Everything a cell becomes is decided by a public schema, so that sites prepare their
rows alike without pooling them. Without a schema bounds are read from the rows, which
suits a first try on one machine and is refused at a site of a federation.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsecure.errors import DataError
from fedsecure.learning.columns import (
    BadCell,
    Encoder,
    category,
    check_outside,
    number,
)
from fedsecure.learning.csvfile import CsvFile, Problems, check_file, lines, unchanged
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.learning.draft import draft
from fedsecure.learning.leakage import check_copies
from fedsecure.learning.partitions import Rows, partition
from fedsecure.learning.schema import Column, Schema, parse_schema, read_schema
from fedsecure.learning.sitedata import Features, SiteData, Targets, Task
from fedsecure.learning.split import Problem, divide
from fedsecure.trainer import JSON


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file, as numbers.

    Attributes
    ----------
    x, y : array
        Shapes (n, features), float32, and (n,).
    keys : tuple of str
        The person or unit of each row; its number if no column has the role `id`.
    sites : tuple of str
        The site of each row, if a column names it.
    widths : tuple of int
        Numbers that each feature of the schema became.
    names : tuple of str
        Of the features; length is the sum of `widths`.
    clipped : int
    """

    x: Features
    y: Targets
    keys: tuple[str, ...]
    sites: tuple[str, ...]
    widths: tuple[int, ...]
    names: tuple[str, ...]
    clipped: int


def load_table(config: DataConfig, index: int, sites: int) -> SiteData:
    """Return the rows of one site of a CSV, checked against the schema.

    One file per site; or one file with a site column, sites in the order of their
    sorted names; or one file alone, which is all of the site's where `require_schema`
    is set, and is dealt like an embedded set where it is not.

    Raises
    ------
    DataError
        What is wrong, with file and line; see DATA.md section 5. Nothing was written.
    """
    files = [check_file(path, config) for path in config.path]
    schema = _schema(files, config)
    _check_columns(files, schema)
    _check_user(schema, config.user_column)
    task = _task(schema.target, config.task)
    if len(files) == sites > 1 and not config.site_column:
        table = _parsed(files[index], schema, config, task)
        rows, natural = np.arange(len(table.y), dtype=np.int64), files[index].path.name
    elif len(files) == 1:
        table = _parsed(files[0], schema, config, task)
        rows, natural = _rows_of(table, config, index, sites)
    else:
        raise DataError(
            f"data.path names {len(files)} files for {sites} sites: name one per site, "
            "or one file, with data.site_column if it tells the sites apart"
        )
    if natural:
        _check_site(natural, table.y[rows], task, config.min_rows)
    problem = _problem(schema, task, files[index % len(files)], table, config)
    keys = [table.keys[row] for row in rows]
    return divide(table.x[rows], table.y[rows], keys, config, problem)


def draft_schema(path: Path | str, config: DataConfig | None = None) -> str:
    """Return a schema guessed from a file, every bound marked as taken from rows.

    Parameters
    ----------
    config : DataConfig, optional
        How to read the file, and `target`, `site_column` and `task` if known; the
        target is else guessed to be the last column.

    Raises
    ------
    DataError
        The file is malformed, or its target has no use.
    """
    reading = replace(config or DataConfig(), path=(str(path),))
    return draft([check_file(str(path), reading)], reading)


def _schema(files: Sequence[CsvFile], config: DataConfig) -> Schema:
    if config.schema_path:
        schema = read_schema(Path(config.schema_path), strict=config.require_schema)
    elif config.require_schema:
        raise DataError(
            "data.schema_path is missing: bounds and categories must be public here, "
            "not read from rows; `fedsecure data schema` drafts a file to edit"
        )
    else:
        schema = parse_schema(draft(files, config), "drafted schema", strict=False)
    if schema.target.name != config.target:
        files[0].position(config.target, "target")
        raise DataError(
            f'data.target is "{config.target}", the schema\'s is '
            f'"{schema.target.name}": they must be the same'
        )
    return schema


def _check_columns(files: Sequence[CsvFile], schema: Schema) -> None:
    """Refuse files whose columns are not the schema's; order does not matter."""
    files[0].position(schema.target.name, "target")
    known = [c.name for c in schema.columns]
    every = dict.fromkeys([*known, *(name for f in files for name in f.header)])
    odd = [
        name
        for name in every
        if name not in known or any(name not in f.header for f in files)
    ]
    if odd:
        head = ["column", "in schema", *(f.path.name for f in files)]
        where = [known, *(f.header for f in files)]
        body = [[n, *("yes" if n in names else "no" for names in where)] for n in odd]
        table = "\n".join(" | ".join(row) for row in [head, *body])
        raise DataError(
            f"columns differ (give what is not needed the role drop):\n{table}"
        )


def _check_user(schema: Schema, user: str) -> None:
    """Refuse a person's name that the model would read, or that is not there."""
    role = next((c.role for c in schema.columns if c.name == user), "absent")
    if user and role not in {"id", "drop"}:
        raise DataError(
            f'data.user_column="{user}" has the role {role} in the schema: describe it '
            "with the role id"
        )


def _task(target: Column, wanted: str) -> Task:
    if target.type == "date":
        raise DataError(f'target "{target.name}" is a date: nothing here predicts one')
    found = "regression" if target.type == "numeric" else "classification"
    if wanted and wanted != found:
        raise DataError(
            f'data.task={wanted}, but target "{target.name}" has type {target.type}: '
            f"set data.task={found}, or change the type in the schema"
        )
    if found == "regression":
        return "regression"
    return "binary" if len(target.categories) == 2 else "multiclass"


@lru_cache(maxsize=1)  # several sites of one file, one after the other
def _parsed(file: CsvFile, schema: Schema, config: DataConfig, task: Task) -> Table:
    with unchanged(file.path) as digest:
        if digest != file.digest:
            raise DataError(f"{file.path.name} changed while it was read: start again")
        table = _parse(file, schema, config, task)
    check_copies(table.x, table.y, table.widths, schema.features, task, config.allow)
    return table


def _parse(file: CsvFile, schema: Schema, config: DataConfig, task: Task) -> Table:
    """Turn each cell into numbers; all lines are read before the first is refused."""
    absent = frozenset(config.missing)
    encoders = [Encoder(column, absent) for column in schema.features]
    places = [file.header.index(column.name) for column in schema.features]
    target_at = file.header.index(schema.target.name)
    key_at = _place(file, config.user_column or schema.named("id"))
    site = "" if config.require_schema else schema.named("site")
    site_at = _place(file, config.site_column or site)
    values, targets = array("f"), array("d")
    keys: list[str] = []
    sites: list[str] = []
    problems = Problems(file.path.name)
    for row, (line, cells) in enumerate(lines(file, config)):
        try:
            targets.append(_target(cells[target_at].strip(), schema.target, absent))
            for encoder, place in zip(encoders, places, strict=True):
                values.extend(encoder.encode(cells[place]))
            keys.append(_named(cells, key_at, absent, "id") or str(row))
            sites.append(_named(cells, site_at, absent, "site"))
        except BadCell as bad:
            problems.add(line, str(bad))
    problems.check()
    widths = tuple(len(encoder.names) for encoder in encoders)
    names = tuple(name for encoder in encoders for name in encoder.names)
    y: Targets = np.array(targets, dtype=np.float32)
    if task != "regression":
        y = np.array(targets).astype(np.int64)
    return Table(
        np.array(values, dtype=np.float32).reshape(-1, sum(widths)),
        y,
        tuple(keys),
        tuple(sites) if site_at >= 0 else (),
        widths,
        names,
        sum(encoder.clipped for encoder in encoders),
    )


def _place(file: CsvFile, column: str | None) -> int:
    return file.position(column, "column") if column else -1


def _named(cells: Sequence[str], place: int, absent: frozenset[str], what: str) -> str:
    if place < 0:
        return ""
    cell = cells[place].strip()
    if cell in absent:
        raise BadCell(f"the {what} is missing ({cell!r})")
    return cell


def _target(cell: str, column: Column, absent: frozenset[str]) -> float:
    """Return the class, or the number scaled to -1 to 1 by the bounds."""
    if cell in absent:
        raise BadCell(f"target {column.name} is missing ({cell!r}): drop the row")
    if column.categories:
        return float(category(cell, column))
    value, (low, high) = number(cell, column), column.bounds
    if not low <= value <= high:
        check_outside(cell, column)
        value = min(max(value, low), high)
    return 2 * (value - low) / (high - low) - 1


def _rows_of(
    table: Table, config: DataConfig, index: int, sites: int
) -> tuple[Rows, str]:
    """Return a site's rows of one file, and its name unless they were dealt."""
    if table.sites:
        names = sorted(set(table.sites))
        if len(names) != sites:
            raise DataError(
                f"the site column holds {len(names)} sites ({', '.join(names[:20])}), "
                f"the federation has {sites}: set federation.sites={len(names)}"
            )
        chosen = names[index]
        mine = np.array([site == chosen for site in table.sites])
        return np.flatnonzero(mine).astype(np.int64), chosen
    if sites == 1 or config.require_schema:
        return np.arange(len(table.y), dtype=np.int64), Path(config.path[0]).name
    return _dealt(table, config, index, sites), ""


def _dealt(table: Table, config: DataConfig, index: int, sites: int) -> Rows:
    """Deal keys, not rows: one person or unit is at one site only."""
    first: dict[str, int] = {}
    for row, key in enumerate(table.keys):
        first.setdefault(key, row)
    labels = table.y[np.fromiter(first.values(), dtype=np.int64)]
    parts = partition(labels, config.dealing(sites), config.cache_folder())
    order = list(first)
    mine = {order[place] for place in parts[index]}
    rows: NDArray[np.bool_] = np.array([key in mine for key in table.keys])
    return np.flatnonzero(rows).astype(np.int64)


def _check_site(name: str, y: Targets, task: Task, least: int) -> None:
    if len(y) < least:
        raise DataError(f"site {name}: {len(y)} rows, data.min_rows={least} are asked")
    if task != "regression" and len(np.unique(y)) < 2:
        raise DataError(
            f"site {name}: all {len(y)} rows are of one class; it can teach nothing "
            "about the others: leave it out, or join it with another site"
        )


def _problem(
    schema: Schema, task: Task, file: CsvFile, table: Table, config: DataConfig
) -> Problem:
    how = "to [-1, 1] by the schema's bounds"
    if not config.schema_path:
        how = "to [-1, 1] by bounds read from the rows: not private, not for a site"
    features: list[JSON] = list(table.names)
    description: dict[str, JSON] = {
        "name": file.path.stem,
        "sha256": file.digest,
        "schema": schema.digest,
        "normalisation": how,
        "features": features,
        "clipped_cells": table.clipped,
        "split": f"test_fraction {config.test_fraction}, by id",
        "seed": config.seed,
    }
    outputs = len(schema.target.categories) if task == "multiclass" else 1
    return Problem(task, outputs, description)
