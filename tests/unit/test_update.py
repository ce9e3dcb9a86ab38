"""A model as one vector: layouts, and updates that cannot hold NaN."""

import hashlib
import struct
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, NotFinite
from fedsecure.update import (
    Layout,
    ModelUpdate,
    RoundId,
    flatten,
    float_bytes,
    unflatten,
)

LAYOUT = Layout(("w", "b", "t"), ((2, 3), (3,), ()))


def test_layout_counts_scalars_as_one() -> None:
    assert LAYOUT.num_parameters == 10


def test_layout_of_arrays_keeps_their_order() -> None:
    tensors = {"z": np.zeros((2, 3)), "a": np.zeros(3)}
    assert Layout.of(tensors) == Layout(("z", "a"), ((2, 3), (3,)))


@pytest.mark.parametrize(
    "other",
    [
        Layout(("b", "w", "t"), ((3,), (2, 3), ())),
        Layout(("w", "b", "t"), ((3, 2), (3,), ())),
        Layout(("w", "b", "u"), ((2, 3), (3,), ())),
        Layout(("w", "b"), ((2, 3), (3,))),
    ],
)
def test_digest_tells_layouts_apart(other: Layout) -> None:
    assert other.digest() != LAYOUT.digest()


@pytest.mark.parametrize("name", ["w", "größe", "\u2028", 'a"\\\n\x01', "\x7f"])
def test_digest_is_that_of_the_canonical_document(name: str) -> None:
    # What travels is the canonical document, and both ends compare its digest.
    layout = Layout((name,), ((2,),))
    text = canonical(layout.document())
    assert layout.digest() == hashlib.sha256(text).digest()


@given(
    shapes=st.lists(
        st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=4
    )
)
def test_flatten_and_unflatten_are_inverse(shapes: list[tuple[int, ...]]) -> None:
    random = np.random.default_rng(1)
    tensors = {str(i): random.normal(size=s) for i, s in enumerate(shapes)}
    back = unflatten(flatten(tensors), Layout.of(tensors))
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_flat_vector_is_float64_in_c_order() -> None:
    flat = flatten({"w": np.array([[1, 2], [3, 4]], dtype=np.int8).T})
    assert flat.dtype == np.float64
    assert flat.tolist() == [1.0, 3.0, 2.0, 4.0]


def test_no_tensors_give_an_empty_vector() -> None:
    assert flatten({}).shape == (0,)


@pytest.mark.parametrize("shape", [(9,), (11,), (10, 1), ()])
def test_vector_of_another_shape_does_not_unflatten(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="layout wants"):
        unflatten(np.zeros(shape), LAYOUT)


@pytest.mark.parametrize("shape", [(9,), (10, 1)])
def test_update_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="the layout wants"):
        ModelUpdate(LAYOUT, np.zeros(shape), 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_update_that_is_not_finite_is_refused(bad: float) -> None:
    delta = np.zeros(10)
    delta[[3, 7]] = bad
    with pytest.raises(NotFinite, match="2 values that are NaN or Inf"):
        ModelUpdate(LAYOUT, delta, 5)


def test_rounds_are_ordered_by_run_and_number() -> None:
    assert sorted([RoundId("b", 1), RoundId("a", 10), RoundId("a", 9)]) == [
        RoundId("a", 9),
        RoundId("a", 10),
        RoundId("b", 1),
    ]


def test_round_id_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RoundId("a", 1).number = 2  # type: ignore[misc]


def test_bytes_of_a_vector_are_little_endian_float64_and_no_copy() -> None:
    vector = np.array([1.0, -2.5])
    found = float_bytes(vector)
    assert bytes(found) == b"".join(struct.pack("<d", x) for x in vector)
    vector[0] = 7.0
    assert bytes(found[:8]) == struct.pack("<d", 7.0)


def test_bytes_of_a_strided_or_big_endian_vector_are_made() -> None:
    for vector in (np.arange(6.0)[::2], np.array([0.0, 2.0, 4.0]).astype(">f8")):
        assert bytes(float_bytes(vector)) == np.array([0.0, 2.0, 4.0]).tobytes()
