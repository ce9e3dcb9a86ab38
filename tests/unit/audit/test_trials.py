"""A parameter is a trial: one example of clip norm on each, clipped by the engine."""

import numpy as np
import pytest

from fedsecure.audit.programme import PLAN
from fedsecure.audit.trials import Trials
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import CLIP_SHRINK
from tests.fakes.randomness import Stream

LATTICE = Lattice.of(PLAN, 500, 24, 5)


@pytest.fixture
def noise() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return Trials(PLAN, LATTICE, Stream("a")).contribution(present=False)


def test_an_example_is_the_clip_norm_on_its_own_parameter(
    noise: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    both = Trials(PLAN, LATTICE, Stream("a")).contribution(present=True)
    step = abs(int(np.rint(PLAN.clip_norm * CLIP_SHRINK * LATTICE.steps)))
    assert set(np.abs(both - noise)) == {step}


def test_without_examples_noise_is_all_there_is(
    noise: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    alone, _ = LATTICE.contribute(np.zeros(500), Stream("b"))
    assert noise.std() == pytest.approx(alone.std(), rel=0.2)
    assert noise.shape == (500,)
