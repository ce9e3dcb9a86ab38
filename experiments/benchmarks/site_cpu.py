"""CPU seconds a site spends a round on real Flower processes, training included.

    python experiments/benchmarks/site_cpu.py [--json] [--rounds 6] [OVERRIDE ...]

Runs `backend=deployment` (digits, logistic: training itself takes milliseconds) and
reads /proc between the second release and the last: the node daemon of each site and
everything it started, ended children included (cutime, cstime of proc(5)). Joining,
that is starting Python, Flower and torch and the run key, is before that.
"""

import argparse
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from fedsecure.composition import composed  # noqa: E402 - after the filter
from fedsecure.experiment import run_experiment  # noqa: E402

TARGET = 3.0
_TICK = os.sysconf("SC_CLK_TCK")


def site_cpu() -> dict[str, float]:
    """Return CPU seconds so far of each kind of process at all sites."""
    alive = _processes()
    used: dict[str, float] = {}
    for pid, (_, command, seconds) in alive.items():
        line = _line(pid, alive)
        if any("fedsecure.daemons.node" in c for c in line):
            kind = _kind(command)
            used[kind] = used.get(kind, 0.0) + seconds
    return used


def _processes() -> dict[int, tuple[int, str, float]]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, UnicodeDecodeError):
            continue  # it ended while we looked
        seconds = sum(map(int, fields[11:15])) / _TICK
        found[int(folder.name)] = (int(fields[1]), command, seconds)
    return found


def _line(pid: int, alive: Mapping[int, tuple[int, str, float]]) -> list[str]:
    """Return the commands from a process up to this one; empty if it is not ours."""
    line = []
    while pid in alive and pid != os.getpid():
        line.append(alive[pid][1])
        pid = alive[pid][0]
    return line if pid == os.getpid() else []


def _kind(command: str) -> str:
    for word, kind in (
        ("daemons.node", "node daemon"),
        ("daemons.worker", "training worker"),
        ("daemons.kept_worker", "training worker"),
        ("supernode", "supernode"),
        ("superexec", "superexec and ended ClientApps"),
        ("clientapp", "ClientApp"),
    ):
        if word in command:
            return kind
    return "other"


def measured(rounds: int, overrides: list[str]) -> dict[str, Any]:
    marks: list[tuple[int, dict[str, float]]] = []

    def show(event: Mapping[str, Any]) -> None:
        if event["event"] == "released":
            marks.append((int(event["round"]), site_cpu()))

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        words = [
            "backend=deployment",
            "privacy=none",
            f"federation.rounds={rounds}",
            "baselines=false",
            f"run_root={scratch}",
            *overrides,
        ]
        config = composed(words)
        run_experiment(config, show)
    (start, first), (end, last) = marks[1], marks[-1]
    counted = (end - start) * config.federation.sites
    kinds = {k: (v - first.get(k, 0.0)) / counted for k, v in last.items()}
    total = sum(kinds.values())
    return {
        "rounds_counted": end - start,
        "sites": config.federation.sites,
        "cpu_seconds_per_site_and_round": total,
        "by_process": kinds,
        "target": TARGET,
        "missed": total > TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = measured(arguments.rounds, arguments.overrides)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for kind, seconds in found["by_process"].items():
        print(f"{kind:<34} {seconds:6.3f} s")
    total = found["cpu_seconds_per_site_and_round"]
    print(f"{'per site and round':<34} {total:6.3f} s (<= {TARGET})")


if __name__ == "__main__":
    main()
