"""The derived arguments of docs/adr/0014 to 0017, checked on numbers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedsecure.audit.bench import Bench
from fedsecure.audit.programme import PLAN
from fedsecure.privacy.gradients.clipped import ClippedGradients
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import CLIP_SHRINK, MAX_SIGMA, DiscreteGaussian
from fedsecure.update import IntVector, Vector
from tests.fakes.modules import cnn, mlp
from tests.fakes.oracle import each_loss
from tests.fakes.randomness import Stream

DIMENSION = 400
GRID = Lattice.of(PLAN, DIMENSION, 24, 5)
FIELD = 1 << 24


def moved(before: Vector, example: Vector, grid: Lattice = GRID) -> float:
    """Return how far integers move by one example; the noise is alike and cancels."""
    old, new = (
        grid.contribute(total, Stream("the same"))[0]
        for total in (before, before + example)
    )
    return float(np.linalg.norm((new - old).astype(np.float64)))


# --- 0014: rounding after the sum -----------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-4, 0.1, 1.0, 15.9, 40])
)
def test_neighbouring_sums_are_at_most_d_apart(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    before = rng.normal(0, scale, DIMENSION)
    example = rng.normal(0, 1, DIMENSION)
    example *= PLAN.clip_norm * CLIP_SHRINK / np.linalg.norm(example)
    assert moved(before, example) <= GRID.sensitivity


def edge(lift: float) -> tuple[Vector, Vector]:
    """Return a sum of coordinates just below a half, and what lifts all above it."""
    below = np.full(DIMENSION, (0.5 - lift / 2) / GRID.steps)
    return below, np.full(DIMENSION, lift / GRID.steps)


def test_a_tiny_example_may_move_every_coordinate_by_one() -> None:
    before, example = edge(1e-6)
    assert moved(before, example) == pytest.approx(math.sqrt(DIMENSION))
    assert GRID.steps * np.linalg.norm(example) < 0.001


def test_half_the_rounding_would_not_be_enough() -> None:
    before, example = edge(1e-6)
    halved = GRID.steps * float(np.linalg.norm(example)) + math.sqrt(DIMENSION) / 2
    assert moved(before, example) > halved


def test_clamping_moves_nothing_apart() -> None:
    rng = np.random.default_rng(1)
    far = rng.choice([-40.0, 15.9999, 16.0, 40.0], DIMENSION)
    example = np.zeros(DIMENSION)
    example[7] = PLAN.clip_norm * CLIP_SHRINK
    assert moved(far, example) <= GRID.sensitivity


@pytest.mark.parametrize("bits", [24, 48])
@pytest.mark.parametrize("dimension", [1, 650, 1_000_000])
def test_the_shrunk_clip_covers_the_floats_of_scaling(
    bits: int, dimension: int
) -> None:
    grid = Lattice.of(PLAN, dimension, bits, 5)
    assert grid.clamp < 2**31
    spare = grid.steps * PLAN.clip_norm * 2.0**-10
    assert spare > 2000 * 2.0**-21 * math.sqrt(dimension)


# --- 0015: packing is post-processing -------------------------------------------------


def split(total: IntVector, seed: int, width: int) -> list[IntVector]:
    """Return five parts of a sum, four of them anything."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(-width, width, total.size) for _ in range(4)]
    return [*parts, total - sum(parts)]


@pytest.fixture(scope="module")
def total() -> IntVector:
    return np.random.default_rng(9).integers(-5 * FIELD, 5 * FIELD, DIMENSION)


def test_an_overflowing_sum_opens_alike_however_it_is_split(total: IntVector) -> None:
    with Bench(PLAN, DIMENSION) as bench:
        opened = [bench.send(n, split(total, n, 8 * FIELD)).sum() for n in (1, 2, 3)]
    assert not np.array_equal(opened[0], total)
    assert np.array_equal(opened[0], opened[1])
    assert np.array_equal(opened[0], opened[2])


def test_fields_that_each_site_saturates_tell_splits_apart(total: IntVector) -> None:
    limit = FIELD // 2 - 1
    with Bench(PLAN, DIMENSION) as bench:
        opened = [
            bench.send(
                n, [np.clip(p, -limit, limit) for p in split(total, n, 8 * FIELD)]
            ).sum()
            for n in (1, 2)
        ]
    assert not np.array_equal(opened[0], opened[1])


# --- 0016: the sampler's distance -----------------------------------------------------


def test_a_draws_distance_is_that_of_the_record() -> None:
    rows = math.ceil(14 * MAX_SIGMA) + 1
    assert rows < 2**21
    assert rows * 2.0**-127 + 2.0**-140 < 2.0**-105
    assert 2 * math.exp(-98) < 2.0**-140
    assert DiscreteGaussian(1000.0).distance < 2.0**-105


def test_two_billion_draws_cost_delta_nothing_that_is_printed() -> None:
    eta = 2.0**31 * 2.0**-105
    assert (1 + math.exp(8)) * eta < 2e-19


# --- 0017: the float margin -----------------------------------------------------------

MARGIN = 2.0**-10
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (6,)),
    "cnn": (cnn, (2, 6, 6)),
}


def clipped_sum(module: nn.Module, rows: torch.Tensor, classes: torch.Tensor) -> Vector:
    gradients = ClippedGradients(module, each_loss, 0.01)
    try:
        return gradients.sum(rows, classes)
    finally:
        gradients.close()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [31, 256, 1437])
def test_a_neighbours_sum_is_within_the_clip_and_owes_others_last_bits_little(
    name: str, size: int
) -> None:
    make, shape = MODELS[name]
    generator = torch.Generator().manual_seed(size)
    rows = torch.randn(size + 1, *shape, generator=generator)
    classes = torch.randint(0, 3, (size + 1,), generator=generator)
    module = make()
    less = clipped_sum(module, rows[:-1], classes[:-1])
    more = clipped_sum(module, rows, classes)
    alone = clipped_sum(module, rows[-1:], classes[-1:])
    assert np.linalg.norm(more - less) <= 0.01
    assert np.linalg.norm(more - less - alone) <= 0.01 * MARGIN / 1000
