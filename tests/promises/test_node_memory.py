"""A node daemon never holds a whole encrypted answer: measured in a real process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "benchmarks" / "node_memory.py"
PARAMETERS = 10_000_000
ANSWER_MIB = PARAMETERS * 3.79 / (1 << 20)
BOUND_MIB = 32  # SEAL alone stays below it; SEAL and a whole answer would not

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def peaks() -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", "--params", str(PARAMETERS)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Any = json.loads(done.stdout.splitlines()[-1])
    table: dict[str, dict[str, float]] = found["mib"]
    return table


@pytest.mark.parametrize("letter", ["first letter", "letter with a release"])
def test_answer_is_made_in_32_mib(
    peaks: dict[str, dict[str, float]], letter: str
) -> None:
    assert peaks[letter]["protect"] < BOUND_MIB


@pytest.mark.parametrize(
    "letter", ["first letter", "letter with a release", "the same again"]
)
def test_answer_is_sent_without_holding_it(
    peaks: dict[str, dict[str, float]], letter: str
) -> None:
    assert peaks[letter]["send"] < ANSWER_MIB / 2
