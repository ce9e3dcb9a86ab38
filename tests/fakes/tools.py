"""Programs that check files of deployment: found, or the test that asks is skipped."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def tool(name: str, package: str = "pip install 'fedsecure[deploy]'") -> str:
    """Return a program of this environment or of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: {package}")
    return found


def said(command: Sequence[str]) -> tuple[int, str]:
    """Return the exit code of a program and all it said."""
    done = subprocess.run(
        [*command], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr
