r"""Expressions over tensor names: regular ones, without what makes matching slow.

They come with a plan, from outside, so the engine of `re` never sees them: it goes back
and tries again, for longer than a site lives on ``(a+)+b``. Here all places a match may
have reached are carried at once (Thompson 1968), and a repeat within a repeat is not
read at all: at most 128 symbols x 255 turns a name, whatever the two texts are.

Read are literals, ``.``, ``\d``, ``\w``, ``\`` before punctuation, ``[a-z_]``,
``[^.]``, groups, ``|``, and ``* + ? {2} {1,} {1,3}`` behind any of them. The whole name
must match, so there are no anchors; letters and digits are ASCII's.
"""

from dataclasses import dataclass
from typing import TypeAlias

from fedsecure.errors import ConfigurationError

MAX_PATTERNS = 64
MAX_LENGTH = 128
MAX_NAME = 255
_DIGITS = frozenset("0123456789")
_WORD = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_QUANTIFIERS = {"*": (0, MAX_NAME), "+": (1, MAX_NAME), "?": (0, 1)}


@dataclass(frozen=True, slots=True)
class _Chars:
    """One character: among these, or among all others."""

    members: frozenset[str]
    among: bool = True


@dataclass(frozen=True, slots=True)
class _Row:
    """One after the other."""

    items: tuple["_Node", ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Any one of these."""

    items: tuple["_Node", ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """From `least` to `most` times; a name has at most 255 characters."""

    item: "_Node"
    least: int
    most: int


_Node: TypeAlias = _Chars | _Row | _Choice | _Repeat


class Pattern:
    """One expression, read.

    Parameters
    ----------
    text : str

    Raises
    ------
    ConfigurationError
        Longer than 128 characters, or none of what is read here.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise ConfigurationError(
                f"pattern of {len(text)} characters, at most {MAX_LENGTH}: use more "
                "patterns"
            )
        self._node = _Reader(text).whole()

    def matches(self, name: str) -> bool:
        """Return whether the whole of `name` is described.

        Raises
        ------
        ConfigurationError
            The name has more than 255 characters.
        """
        if len(name) > MAX_NAME:
            raise ConfigurationError(
                f"tensor name of {len(name)} characters, at most {MAX_NAME} are "
                "compared with patterns"
            )
        ends = _Matcher(name).ends(self._node, 1)
        return bool(ends >> len(name) & 1)


class _Matcher:
    """Carries all places in a name that a match may have reached, as bits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._masks: dict[_Chars, int] = {}

    def ends(self, node: _Node, starts: int) -> int:
        """Return where matches of `node` end that begin at one of `starts`."""
        if isinstance(node, _Chars):
            return (starts & self._mask(node)) << 1
        if isinstance(node, _Row):
            for item in node.items:
                starts = self.ends(item, starts)
            return starts
        if isinstance(node, _Choice):
            found = 0
            for item in node.items:
                found |= self.ends(item, starts)
            return found
        return self._repeated(node, starts)

    def _repeated(self, node: _Repeat, starts: int) -> int:
        reached = starts
        for _ in range(node.least):
            reached = self.ends(node.item, reached)
        fresh, found = reached, reached
        for _ in range(node.most - node.least):
            fresh = self.ends(node.item, fresh) & ~found
            if not fresh:
                break
            found |= fresh
        return found

    def _mask(self, chars: _Chars) -> int:
        known = self._masks.get(chars)
        if known is None:
            known = 0
            for place, char in enumerate(self._name):
                known |= ((char in chars.members) == chars.among) << place
            self._masks[chars] = known
        return known


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> _Node:
        node = self._choice()
        if self._peek():
            raise self._wrong("a bracket is closed that was not opened")
        return node

    def _choice(self) -> _Node:
        items = [self._row()]
        while self._peek() == "|":
            self._next()
            items.append(self._row())
        return items[0] if len(items) == 1 else _Choice(tuple(items))

    def _row(self) -> _Node:
        items: list[_Node] = []
        while self._peek() not in {"", "|", ")"}:
            items.append(self._repeat(self._atom()))
        return _Row(tuple(items))

    def _repeat(self, item: _Node) -> _Node:
        char = self._peek()
        if char in _QUANTIFIERS:
            self._next()
            least, most = _QUANTIFIERS[char]
        elif char == "{":
            least, most = self._counts()
        else:
            return item
        following = self._peek()
        if following in _QUANTIFIERS or following == "{":
            raise self._wrong("a quantifier follows a quantifier")
        if most > 1 and _repeats(item):
            raise self._wrong("a repeat within a repeat is not read: matching is slow")
        return _Repeat(item, least, most)

    def _counts(self) -> tuple[int, int]:
        inside = self._until("}")
        low, comma, high = inside.partition(",")
        most = high if high or not comma else str(MAX_NAME)
        numbers = (low, most if comma else low)
        # Not isdecimal: other scripts have digits too.
        if not all(n and len(n) <= 3 and set(n) <= _DIGITS for n in numbers):
            raise self._wrong(f"{{{inside}}} is no count")
        least, limit = int(numbers[0]), int(numbers[1])
        if not least <= limit <= MAX_NAME:
            raise self._wrong(f"{{{inside}}} must rise, to {MAX_NAME} at most")
        return least, limit

    def _atom(self) -> _Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == ".":
            return _Chars(frozenset("\n"), among=False)
        if char == "\\":
            return _Chars(self._escaped())
        if char in "*+?{}]^$":
            raise self._wrong(f"{char!r} stands where it says nothing")
        return _Chars(frozenset(char))

    def _group(self) -> _Node:
        if self._text.startswith("?:", self._at):
            self._at += 2
        node = self._choice()
        if self._next() != ")":
            raise self._wrong("a bracket is not closed")
        return node

    def _class(self) -> _Node:
        among = self._peek() != "^"
        if not among:
            self._next()
        members: set[str] = set()
        while self._peek() not in {"", "]"}:
            members |= self._members()
        if self._next() != "]" or not members:
            raise self._wrong("a class of characters is empty or not closed")
        return _Chars(frozenset(members), among)

    def _members(self) -> frozenset[str]:
        low = self._next()
        if low == "\\":
            return self._escaped()
        if low == "[":
            raise self._wrong("'[' within a class is written as '\\['")
        after = self._text[self._at + 1 : self._at + 2]
        if self._peek() != "-" or after in {"", "]"}:
            return frozenset(low)
        self._next()
        high = self._next()
        if high in "\\[" or not low <= high or ord(high) - ord(low) > MAX_NAME:
            raise self._wrong(f"{low}-{high} is no range of characters")
        return frozenset(map(chr, range(ord(low), ord(high) + 1)))

    def _escaped(self) -> frozenset[str]:
        char = self._next()
        if char == "d":
            return _DIGITS
        if char == "w":
            return _WORD
        if not char or char.isalnum():
            raise self._wrong(f"\\{char} is not read: only \\d, \\w and punctuation")
        return frozenset(char)

    def _until(self, end: str) -> str:
        stop = self._text.find(end, self._at)
        if stop < 0:
            raise self._wrong(f"{end!r} is missing")
        inside = self._text[self._at + 1 : stop]
        self._at = stop + 1
        return inside

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _wrong(self, why: str) -> ConfigurationError:
        at = min(self._at, len(self._text))
        return ConfigurationError(f"{self._text!r} at character {at}: {why}")


def _repeats(node: _Node) -> bool:
    """Return whether something in `node` is repeated."""
    if isinstance(node, _Repeat):
        return node.most > 1 or _repeats(node.item)
    if isinstance(node, _Chars):
        return False
    return any(_repeats(item) for item in node.items)
