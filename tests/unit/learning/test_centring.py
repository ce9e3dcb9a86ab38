import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import DataError
from fedsecure.learning.centring import centred


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 40))
def test_every_row_has_mean_zero(seed: int, count: int, width: int) -> None:
    x = np.random.default_rng(seed).normal(3, 5, (count, width)).astype(np.float32)
    found = centred(x)
    assert found.dtype == np.float32
    assert np.abs(found.mean(axis=1, dtype=np.float64)).max() < 1e-5


def test_a_row_does_not_depend_on_other_rows() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    other = x.copy()
    other[1:] *= 100
    assert centred(x)[0].tobytes() == centred(other)[0].tobytes()
    assert centred(x)[0].tobytes() == centred(x[:1])[0].tobytes()


def test_an_images_mean_is_over_all_its_numbers() -> None:
    x = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    found = centred(x)
    flat = centred(x.reshape(4, -1))
    assert np.array_equal(found.reshape(4, -1), flat)


def test_what_a_row_keeps_are_its_differences() -> None:
    x = np.array([[1, 2, 6]], dtype=np.float32)
    assert centred(x).tolist() == [[-2, -1, 3]]


def test_no_rows_stay_no_rows() -> None:
    assert centred(np.zeros((0, 3), dtype=np.float32)).shape == (0, 3)


@pytest.mark.parametrize("shape", [(4, 1), (4,), (4, 1, 1)])
def test_rows_of_one_number_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="centre_rows=true with rows of one number"):
        centred(np.ones(shape, dtype=np.float32))
