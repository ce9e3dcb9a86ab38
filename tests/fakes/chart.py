"""The Helm chart as Helm itself renders it, in a process of its own.

Helm's engine comes as a library of Go with its own threads and signals: not beside
the tests. `python -m tests.fakes.chart` reads JSON from stdin, writes it to stdout.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CHART = ROOT / "server" / "deploy" / "chart"
Manifest = Mapping[str, Any]
Values = Mapping[str, object]


def ask(values: Sequence[Values]) -> dict[str, Any]:
    """Return Helm's findings on the chart and what it renders of each set of values.

    Returns
    -------
    dict
        ``lint``: Helm's messages; ``rendered``: for each values the list of manifests,
        or a text: why they were refused.
    """
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("no Helm: pip install 'fedsecure[deploy]'")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.chart"],
        input=json.dumps([*values]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    answer["rendered"] = [
        text if isinstance(text, str) else [m for t in text for m in _manifests(t)]
        for text in answer["rendered"]
    ]
    return answer


def _manifests(text: str) -> list[Manifest]:
    # Duplicate keys are an error of this reader.
    return [m for m in YAML(typ="safe", pure=True).load_all(text) if m is not None]


def main() -> None:
    """Answer one question; the last line printed is the answer."""
    import helm_python as helm

    rendered: list[str | list[str]] = []
    with helm.Chart.load(str(CHART)) as chart:
        for values in json.load(sys.stdin):
            try:
                chart.validate_schema(values)
                made = chart.render(values, name="fed", namespace="prod")
            except helm.HelmError as bad:
                rendered.append(str(bad))
            else:
                rendered.append([*made.values()])
    answer = {"lint": helm.lint(str(CHART)), "rendered": rendered}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
