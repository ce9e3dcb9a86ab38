"""Real processes under SIGKILL and SIGSTOP: what they said is durable, is.

A few in `make test`, a thousand in `make chaos`, from a seed that is printed;
CHAOS_SEED and CHAOS_REAL repeat and bound it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FEW = 25
MANY = int(os.environ.get("CHAOS_REAL", "1000"))
ROOT = Path(__file__).parents[2]


def struck(folder: Path, faults: int, seed: int) -> dict[str, int]:
    """Strike so many writers; return the faults by kind."""
    command = [sys.executable, "-m", "tests.fakes.writers", str(folder)]
    done = subprocess.run(
        [*command, str(faults), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=580,
    )
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    counts: dict[str, int] = told["faults"]
    assert sum(counts.values()) == faults
    assert told["durable"] > faults
    return counts


def test_a_few_writers_that_are_struck_lose_nothing(tmp_path: Path) -> None:
    assert struck(tmp_path, FEW, 1)["SIGKILL"] > 0


@pytest.mark.chaos
def test_a_thousand_writers_that_are_struck_lose_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1000"))
    counts = struck(tmp_path, MANY, seed)
    with capsys.disabled():
        rows = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        sys.stdout.write(f"\nfrom seed {seed}: {sum(counts.values())} real: {rows}\n")
