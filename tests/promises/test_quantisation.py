"""The experiment on quantising runs, goes through encryption, and sees what it should.

Five seeds and the model of MNIST's size take minutes: experiments/utility/README.md.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "utility" / "quantisation.py"

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """Return the digits' row of each arm; a run whose encrypted round differs fails."""
    options = ["--json", "--seeds", "2", "--models", "digits", "--profiles", "8"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return {row["arm"]: row for row in json.loads(done.stdout)["rows"]}


def test_eight_bits_as_they_are_by_default_lose_nothing_to_speak_of(
    rows: dict[str, dict[str, Any]],
) -> None:
    found = rows["8 bit, stochastic + feedback, range from aggregate"]
    assert found["points_lost"] <= 0.5  # two seeds; five promise 0.2


def test_five_bits_to_the_nearest_step_lose_what_can_be_seen(
    rows: dict[str, dict[str, Any]],
) -> None:
    plain = rows["5 bit, nearest, range from config"]["points_lost"]
    better = rows["5 bit, nearest, range from aggregate"]["points_lost"]
    assert plain > max(0.2, better)


def test_fp32_learned(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["fp32"]["accuracy"] > 90
