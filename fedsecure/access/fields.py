"""The steward's file as text: read by YAML 1.2, value by value, with its line numbers.

A value that is none, an unknown field and a repeated key are refused by name: a bound
that nobody checks is worse than none (TRUST.md section 8).
"""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from fedsecure.errors import PolicyRefused
from fedsecure.update import JSON


class _PlainTexts(SafeConstructor):
    """Leaves a date as the text it is, so that one written form is compared."""


_PlainTexts.add_constructor(
    "tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project's rules stand in the file.

    Attributes
    ----------
    path : str
        Such as ``policy.projects[heart].privacy``.
    lines : mapping of str to int
        Lines by field, from 1; a field below a section by both names and a dot.
    section : str
        The section this place is in, with a dot behind it, or nothing.
    """

    path: str
    lines: Mapping[str, int]
    section: str = ""

    def under(self, section: str) -> "Place":
        """Return the place of a section of this place."""
        return Place(f"{self.path}.{section}", self.lines, f"{section}.")

    def refuse(self, field: str, sentence: str) -> NoReturn:
        """Refuse what a plan asks, naming the field and its line.

        Raises
        ------
        PolicyRefused
            Always.
        """
        line = self.lines.get(self.section + field)
        found = "" if line is None else f" (policy.yaml, line {line})"
        raise PolicyRefused(f"{self.path}.{field}: {sentence}{found}")

    def one_of(self, field: str, asked: str, allowed: Collection[str]) -> None:
        """Refuse what is not in a list."""
        if asked not in allowed:
            self.refuse(field, f"the plan has {asked!r}, allowed: {sorted(allowed)}")

    def at_most(self, field: str, asked: float, bound: float) -> None:
        """Refuse what is above a bound, and NaN, which compares false."""
        if not asked <= bound:
            self.refuse(field, f"the plan has {asked}, at most {bound}")

    def at_least(self, field: str, asked: float, bound: float) -> None:
        """Refuse what is below a bound, and NaN."""
        if not asked >= bound:
            self.refuse(field, f"the plan has {asked}, at least {bound}")


def parse(text: bytes) -> tuple[JSON, list[Mapping[str, int]]]:
    """Return the file's value, and of each project the lines of its fields.

    Raises
    ------
    PolicyRefused
        Not YAML, a key twice, or a directive that changes the rules of reading.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _PlainTexts
    try:
        written = text.decode()
        if any(line.startswith("%") for line in written.splitlines()):
            # "%YAML 1.1" would bring back the rules this file must not be read by.
            raise PolicyRefused("policy.yaml: a line starting with % is not allowed")
        value: JSON = yaml.load(StringIO(written))
        tree = YAML(typ="safe", pure=True).compose(StringIO(written))
    except (YAMLError, ValueError, RecursionError) as bad:
        raise PolicyRefused(f"policy.yaml cannot be read: {bad}") from bad
    rows = dict(_children(tree)).get("projects")
    projects = rows.value if isinstance(rows, SequenceNode) else []
    return value, [_lines(row) for row in projects]


def fields_of(
    value: JSON, expected: Collection[str], where: str, may: Collection[str] = ()
) -> Mapping[str, JSON]:
    """Return a section that has the expected fields, and others only of `may`.

    Raises
    ------
    PolicyRefused
        Names the unknown field and the likeliest one meant, or what is missing.
    """
    if not isinstance(value, dict):
        raise PolicyRefused(f"{where}={show(value)}, must have {sorted(expected)}")
    known = {*expected, *may}
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {sorted(known)}"
            raise PolicyRefused(f"{where}: unknown field {show(name)}; {hint}")
    missing = sorted(set(expected) - set(value))
    if missing:
        raise PolicyRefused(f"{where}: missing {', '.join(missing)}")
    return value


def exactly(where: str, value: JSON, wanted: int | str) -> None:
    """Return only if a value is the wanted one, in type too."""
    if type(value) is not type(wanted) or value != wanted:
        raise PolicyRefused(f"{where}={show(value)}, must be {wanted!r}")


def number(value: JSON, where: str) -> float:
    """Return a finite number of at least 0; PolicyRefused otherwise."""
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    try:
        found = math.nan if wrong else float(str(value))
    except (OverflowError, ValueError):  # an integer of thousands of digits
        found = math.inf
    if not (math.isfinite(found) and found >= 0):
        raise PolicyRefused(f"{where}={show(value)}, must be a number of at least 0")
    return found


def count(value: JSON, where: str) -> int:
    """Return a whole number of at least 0; PolicyRefused otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PolicyRefused(f"{where}={show(value)}, must be a whole number, 0 or more")
    return value


def texts(value: JSON, where: str) -> frozenset[str]:
    """Return a list of texts as a set; PolicyRefused otherwise."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise PolicyRefused(f"{where}={show(value)}, must be a list of texts")
    return frozenset(str(v) for v in value)


def word(value: JSON, where: str, words: Collection[str]) -> str:
    """Return a text that is one of `words`; PolicyRefused otherwise."""
    if not isinstance(value, str) or value not in words:
        raise PolicyRefused(f"{where}={show(value)}, must be {' or '.join(words)}")
    return value


def show(value: object) -> str:
    """Return a scalar as written, a container as its kind: aliases can nest forever."""
    if isinstance(value, str | float | bool) or value is None:
        return repr(value)[:80]
    if isinstance(value, int):
        return hex(value)[:80] if value.bit_length() > 128 else repr(value)
    return f"a {type(value).__name__}"


def _children(node: Node | None) -> list[tuple[str, Node]]:
    if not isinstance(node, MappingNode):
        return []
    return [(str(key.value), child) for key, child in node.value]


def _lines(project: Node) -> dict[str, int]:
    """Return the lines of a project's fields, and of those one section below."""
    found: dict[str, int] = {}
    for name, child in _children(project):
        found[name] = child.start_mark.line + 1
        for inner, value in _children(child):
            found[f"{name}.{inner}"] = value.start_mark.line + 1
    return found
