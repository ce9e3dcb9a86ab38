"""Random weather by seed: whatever breaks, in whatever order, I1 to I8 hold.

`make chaos` lets ten thousand faults pass, from a seed it prints; `make test` a few
hundred. A seed that failed is repeated with CHAOS_SEED=n CHAOS_FAULTS=1.
"""

import logging
import os
import sys
from collections.abc import Iterator

import pytest

from tests.chaos.storms import Storm, storms

SHORT = 250
LONG = int(os.environ.get("CHAOS_FAULTS", "10000"))
KINDS = {
    "answer lost",
    "answer twice",
    "copy flipped",
    "copy gone",
    "engine silent",
    "false shares",
    "key wished for",
    "leader dies",
    "leader paused",
    "letters reordered",
    "old answer again",
    "release brought",
    "site dies",
    "store down or back",
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep ten thousand warnings of insecure_plain and of broken copies away."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_few_hundred_faults_break_nothing() -> None:
    toll, wrong = storms(1, SHORT)
    assert wrong == []
    assert toll.total() >= SHORT


def test_one_seed_is_one_storm() -> None:
    assert Storm(7).run().faults == Storm(7).run().faults


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_ten_thousand_faults_break_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1000"))
    toll, wrong = storms(seed, LONG)
    with capsys.disabled():
        rows = ", ".join(f"{kind} {count}" for kind, count in sorted(toll.items()))
        sys.stdout.write(f"\nfrom seed {seed}: {toll.total()} simulated: {rows}\n")
    assert wrong == []
    assert set(toll) == KINDS or LONG < 1000
