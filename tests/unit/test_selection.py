"""Which blocks travel open: never one with a value that is to be encrypted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsecure.ciphertext import CHUNK_BLOCKS
from fedsecure.encoding import Profile, profile
from fedsecure.errors import ConfigurationError
from fedsecure.selection import Selection, encrypted_tensors, runs, select
from fedsecure.update import Layout

TINY = Profile("tiny", 2, 24)
SLOTS = 5  # blocks of 8 values
LAYOUT = Layout(("a", "b", "c"), ((8,), (2, 4), (16,)))


def opened(
    patterns: list[str], layout: Layout = LAYOUT, *, weighted: bool
) -> list[int]:
    found = select(layout, patterns, TINY, SLOTS, weighted=weighted)
    return [int(n) for n in found.opened]


def test_blocks_of_open_tensors_alone_travel_open() -> None:
    assert opened(["b"], weighted=False) == [0, 2, 3]


def test_names_are_matched_in_whole() -> None:
    layout = Layout(("fc", "fc1"), ((8,), (8,)))
    assert opened(["fc"], layout, weighted=False) == [1]


def test_a_block_that_is_shared_is_encrypted() -> None:
    layout = Layout(("a", "b", "c"), ((12,), (1,), (20,)))
    assert opened(["b"], layout, weighted=False) == [0, 2, 3, 4]


def test_the_block_of_the_weight_is_encrypted() -> None:
    assert opened(["b"], weighted=True) == [0, 2, 3]  # in a fifth of its own
    layout = Layout(("a", "b"), ((8,), (7,)))
    assert opened(["a"], layout, weighted=True) == []


def test_everything_may_end_up_encrypted() -> None:
    found = select(LAYOUT, [".*"], TINY, SLOTS, weighted=False)
    assert not found.opened.size
    assert list(found.closed) == [0, 1, 2, 3]


def test_a_pattern_that_matches_no_tensor_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'d' matches no tensor .* a, b, c"):
        select(LAYOUT, ["a", "d"], TINY, SLOTS, weighted=True)


def test_patterns_that_encrypt_no_value_are_refused() -> None:
    layout = Layout(("a", "b"), ((8,), (0,)))
    with pytest.raises(ConfigurationError, match="would encrypt nothing"):
        select(layout, ["b"], TINY, SLOTS, weighted=False)


def test_a_tensor_name_that_is_too_long_is_refused() -> None:
    layout = Layout(("x" * 256,), ((8,),))
    with pytest.raises(ConfigurationError, match="256 characters"):
        select(layout, [".*"], TINY, SLOTS, weighted=False)


def test_any_one_of_the_patterns_is_enough() -> None:
    assert encrypted_tensors(LAYOUT, ["a", "c"]) == (True, False, True)


def test_no_pattern_leaves_nothing_open() -> None:
    assert not Selection.whole(3).is_open.any()


def test_runs_have_no_gap_and_are_a_chunk_at_most() -> None:
    numbers = np.array([0, 1, 5, *range(7, 8 + CHUNK_BLOCKS)])
    found = [(0, 2), (5, 1), (7, CHUNK_BLOCKS), (7 + CHUNK_BLOCKS, 1)]
    assert list(runs(numbers)) == found


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    chosen=st.sets(st.integers(0, 7), min_size=1),
    weighted=st.booleans(),
    name=st.sampled_from(["20", "12", "8", "wide"]),
)
def test_no_value_of_an_encrypted_tensor_is_in_an_open_block(
    sizes: list[int], chosen: set[int], name: str, *, weighted: bool
) -> None:
    names = tuple(f"t{i}" for i in range(len(sizes)))
    layout = Layout(names, tuple((n,) for n in sizes))
    wanted = [names[i % len(names)] for i in chosen]
    found = select(layout, wanted, profile(name), SLOTS, weighted=weighted)
    a_block = profile(name).a_block(SLOTS)
    secret = np.repeat([n in wanted for n in names], sizes)
    secret = np.append(secret, [True] * weighted)
    for block, is_open in enumerate(found.is_open):
        inside = secret[block * a_block : (block + 1) * a_block]
        assert is_open == (not inside.any())


@given(st.sets(st.integers(0, 200), min_size=1))
def test_runs_are_the_numbers_in_order(numbers: set[int]) -> None:
    made = [
        n
        for first, count in runs(np.array(sorted(numbers)))
        for n in range(first, first + count)
    ]
    assert made == sorted(numbers)
