"""A CSV file read strictly: what pandas would mend without a word is refused here.

Short lines, repeated names, NUL, another encoding, a file that changes while it is
read. Memory is constant: a line at a time. Messages hold values and stay at the site.
"""

import csv
import difflib
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from fedsecure.errors import DataError
from fedsecure.learning.dataconfig import DataConfig

MAX_FILE_BYTES = 2 << 30
MAX_COLUMNS = 10_000
MAX_CELL = 1 << 20  # characters
_MAX_LINE = 1 << 24  # characters
_SHOWN = 5


@dataclass(slots=True)
class Problems:
    """What is wrong with a file's lines: the first five in words, then a count."""

    file: str
    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, text: str) -> None:
        """Note that a line, counted from 1, is wrong."""
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(f"{self.file}:{line}: {text}")

    def check(self) -> None:
        """Raise if there was any.

        Raises
        ------
        DataError
        """
        if self.count:
            more = self.count - len(self.shown)
            rest = [f"and {more} more"] if more else []
            raise DataError("\n".join([*self.shown, *rest]))


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A file that was read once from end to end and found well-formed.

    Attributes
    ----------
    path : Path
    header : tuple of str
    rows : int
        Data rows; lines that hold nothing are not counted.
    digest : str
        SHA-256 of the bytes, hex.
    """

    path: Path
    header: tuple[str, ...]
    rows: int
    digest: str

    def position(self, column: str, what: str) -> int:
        """Return a column's position, from 0.

        Parameters
        ----------
        what : str
            What the column is for: the message's first word.

        Raises
        ------
        DataError
            The file does not have it.
        """
        if column in self.header:
            return self.header.index(column)
        lower = {name.lower().strip(): name for name in self.header}
        near = difflib.get_close_matches(column.lower(), lower, 1)
        hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
        raise DataError(
            f'{what} "{column}" is not in {self.path.name}; columns: '
            f"{', '.join(self.header)}{hint}"
        )


def check_file(name: str, config: DataConfig) -> CsvFile:
    """Read a file from end to end, keep nothing of it, and return what it is.

    Raises
    ------
    DataError
        With the line, for whatever this module's head names.
    """
    path = _allowed(name, config.root)
    with unchanged(path) as digest:
        header, rows = _scan(path, config)
    return CsvFile(path, header, rows, digest)


def lines(file: CsvFile, config: DataConfig) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each data row."""
    with _open(file.path, config) as handle:
        reader = _reader(handle, file.path, config)
        next(reader)
        yield from reader


@contextmanager
def unchanged(path: Path) -> Iterator[str]:
    """Give the file's SHA-256, and refuse if it differs when the block ends."""
    before, digest = _stamp(path)
    yield digest
    after, again = _stamp(path)
    if (before, digest) != (after, again):
        raise DataError(
            f"{path.name} changed while it was read: copy it to a place where nobody "
            "writes, and start again"
        )


def _allowed(name: str, root: str) -> Path:
    """Return the real path of a readable file inside the site's data root."""
    path = Path(name).resolve()
    if root and not path.is_relative_to(Path(root).resolve()):
        raise DataError(
            f"{name} is {path}, outside data.root={root}: links out of it are refused"
        )
    if not path.is_file():
        raise DataError(f"data.path={name} is no file; it was looked for at {path}")
    if not os.access(path, os.R_OK):
        raise DataError(
            f"{path} cannot be read by user id {os.getuid()}: change its owner or mode"
        )
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path} has {size} bytes, at most {MAX_FILE_BYTES} are read")
    return path


def _stamp(path: Path) -> tuple[tuple[int, int, int], str]:
    try:
        with path.open("rb") as handle:
            stat = os.fstat(handle.fileno())
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as bad:
        raise DataError(
            f"{path} cannot be read by user id {os.getuid()}: {bad.strerror}"
        ) from bad
    return (stat.st_size, stat.st_mtime_ns, stat.st_ino), digest


def _scan(path: Path, config: DataConfig) -> tuple[tuple[str, ...], int]:
    problems = Problems(path.name)
    with _open(path, config) as handle:
        reader = _reader(handle, path, config)
        header = tuple(next(reader, (0, []))[1])
        _check_header(header, path.name, config.delimiter)
        rows = 0
        for line, cells in reader:
            rows += 1
            if len(cells) != len(header):
                problems.add(line, f"{len(cells)} fields, the header has {len(header)}")
            if rows > config.max_rows:
                raise DataError(
                    f"{path.name} has more than data.max_rows={config.max_rows} rows"
                )
    problems.check()
    return header, rows


def _reader(
    handle: TextIO, path: Path, config: DataConfig
) -> Iterator[tuple[int, list[str]]]:
    """Yield last line number and cells of header and rows; skip blank lines."""
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(
        _bounded(handle, path.name), delimiter=config.delimiter, strict=True
    )
    try:
        for cells in reader:
            if any("\0" in cell for cell in cells):
                raise DataError(f"{path.name}:{reader.line_num}: holds a NUL character")
            if cells:
                yield reader.line_num, cells
    except csv.Error as bad:
        raise DataError(f"{path.name}:{reader.line_num}: {bad}") from bad
    except UnicodeDecodeError as bad:
        raise DataError(
            f"{path.name}: after line {reader.line_num}: {bad.reason} in "
            f"{config.encoding}: set data.encoding, for instance latin-1"
        ) from bad


def _bounded(handle: TextIO, name: str) -> Iterator[str]:
    """Yield lines; one without an end would fill the memory."""
    number = 0
    while line := handle.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise DataError(f"{name}:{number}: line longer than {_MAX_LINE} characters")
        yield line


def _open(path: Path, config: DataConfig) -> TextIO:
    try:
        return path.open(newline="", encoding=config.encoding)
    except LookupError as bad:
        raise DataError(
            f"data.encoding={config.encoding!r} is unknown: use utf-8-sig or latin-1"
        ) from bad


def _check_header(header: Sequence[str], name: str, delimiter: str) -> None:
    if not header:
        raise DataError(f"{name} is empty: it needs a header line")
    if header[0].startswith("\ufeff"):
        raise DataError(
            f"{name} starts with a byte order mark: set data.encoding=utf-8-sig"
        )
    if len(header) == 1:
        _check_delimiter(header[0], name, delimiter)
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{name} has {len(header)} columns, at most {MAX_COLUMNS}")
    seen: dict[str, int] = {}
    for position, column in enumerate(header, 1):
        if not column.strip():
            raise DataError(f"{name}: column {position} has no name")
        if column in seen:
            raise DataError(
                f'{name}: column "{column}" is at positions {seen[column]} and '
                f"{position}: rename one"
            )
        seen[column] = position


def _check_delimiter(header: str, name: str, delimiter: str) -> None:
    counts = {other: header.count(other) for other in ",;\t|:" if other != delimiter}
    best = max(counts, key=lambda other: counts[other])
    if counts[best]:
        raise DataError(
            f"{name}: the header looks like one field; data.delimiter={best!r} would "
            f"split it into {counts[best] + 1}"
        )
