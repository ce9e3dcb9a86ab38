"""Integers that are summed as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import NotFinite
from fedsecure.wholes import Wholes

WHOLES = Wholes(1.0, 20, 16, None, -0.5)


@given(st.lists(st.integers(-(2**47), 2**47), max_size=50))
def test_whole_numbers_pass_as_they_are(numbers: list[int]) -> None:
    found = WHOLES.quantize(np.array(numbers, dtype=np.float64))
    assert found.values.tolist() == numbers
    assert found.saturated == 0


@pytest.mark.parametrize("bad", [0.5, 2.0**48, float("nan"), float("inf")])
def test_what_did_not_come_from_the_grid_is_refused(bad: float) -> None:
    with pytest.raises(NotFinite, match="not on the integer grid"):
        WHOLES.quantize(np.array([1.0, bad]))


def test_a_step_is_the_sum_times_its_unit() -> None:
    assert WHOLES.dequantize(np.array([2, -4])).tolist() == [-1.0, 2.0]
