"""Expressions over tensor names: what they match, and that none of them is slow."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import ConfigurationError
from fedsecure.patterns import MAX_LENGTH, MAX_NAME, Pattern

SECONDS = 0.5
"""Far above what is needed here; `re` would take years for the same."""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fc1.weight", "fc1.weight"),
        ("fc.*", "fc1.weight"),
        (r"fc\d\.(weight|bias)", "fc2.bias"),
        (r"(?:block\.)?conv", "conv"),
        (r"(block\.\d)+", "block.1block.2"),
        ("[a-c_]{2,3}", "b_c"),
        ("[^.]+", "weight"),
        ("a{2}", "aa"),
        ("a{2,}", "aaaa"),
        ("|b", ""),
        (r"\w+\[0\]", "w_1[0]"),
        (r"[\]\\-]+", "]-\\"),
        (".*", "x" * MAX_NAME),
    ],
)
def test_a_name_that_is_described_matches(text: str, name: str) -> None:
    assert Pattern(text).matches(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fc1", "fc1.weight"),
        ("weight", "fc1.weight"),
        (r"fc1\.weight", "fc1-weight"),
        ("a{2}", "aaa"),
        ("a{1,2}", "aaa"),
        ("a+", ""),
        (".", "\n"),
        (r"\d", "٣"),
        ("[^a]", "a"),
    ],
)
def test_a_name_that_is_not_described_in_whole_does_not(text: str, name: str) -> None:
    assert not Pattern(text).matches(name)


@pytest.mark.parametrize(
    "text",
    [
        "(",
        ")",
        "(a",
        "a)",
        "[",
        "[]",
        "[a",
        "[z-a]",
        "[[]",
        "*",
        "a**",
        "a+?",
        "a{2}{3}",
        "a{",
        "a{}",
        "a{x}",
        "a{٣}",
        "a{3,2}",
        "a{256}",
        "a{1,9999}",
        "^a",
        "a$",
        "\\",
        r"\b",
        r"\1",
        "(?=a)",
        "(?P<n>a)",
        "a" * (MAX_LENGTH + 1),
    ],
)
def test_what_is_not_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Pattern(text)


@pytest.mark.parametrize(
    "text", ["(a+)+", "(a*)*b", "((a|b+)){2,}", "(x(a{2,3})?)*", "(.*)*" * 25]
)
def test_a_repeat_within_a_repeat_is_refused_quickly(text: str) -> None:
    before = time.perf_counter()
    with pytest.raises(ConfigurationError, match="repeat within a repeat"):
        Pattern(text)
    assert time.perf_counter() - before < SECONDS


@pytest.mark.parametrize(
    "text",
    [
        ".*" * 63 + "b",
        "(a|a)*b",
        "(a|aa)*b",
        "a?" * 63 + "b",
        "(" * 31 + "a" + "|a)" * 31 + "*",
        "(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|a){1,255}b",
    ],
)
def test_what_makes_other_engines_hang_is_answered(text: str) -> None:
    pattern, name = Pattern(text), "a" * (MAX_NAME - 1) + "c"
    before = time.perf_counter()
    assert not pattern.matches(name)
    assert time.perf_counter() - before < SECONDS


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="256 characters"):
        Pattern(".*").matches("x" * (MAX_NAME + 1))


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\.", "[a-b1]"])
COUNTS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}"])


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Draw an expression in which only single characters are repeated."""

    def row() -> str:
        pieces = draw(st.lists(st.tuples(ATOMS, COUNTS), max_size=4))
        return "".join(a + c for a, c in pieces)

    groups = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    return "".join(f"({row()}|{row()})" if group else row() for group in groups)


@given(expressions(), st.text("ab1.-", max_size=8))
def test_the_answer_is_that_of_the_standard_library(text: str, name: str) -> None:
    assert Pattern(text).matches(name) == bool(re.fullmatch(text, name, re.ASCII))


@given(st.lists(st.sampled_from(["a", "ab", "b1"]), min_size=1), st.integers(0, 5))
def test_groups_repeat_as_in_the_standard_library(parts: list[str], most: int) -> None:
    text = f"({'|'.join(parts)}){{1,{most + 1}}}"
    for name in ("", "a", "ab", "aab", "ababab", "b1b1", "abb1a"):
        assert Pattern(text).matches(name) == bool(re.fullmatch(text, name))


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Pattern(text).matches("layer.weight")
    except ConfigurationError:
        return
