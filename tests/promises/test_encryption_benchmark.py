"""The encryption benchmark runs, is exact, and prints the figures that are promised."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "benchmarks" / "encryption.py"
KEYS = {
    "name",
    "params",
    "sites",
    "encrypt_cpu_s",
    "aggregate_cpu_s",
    "decrypt_cpu_s",
    "uplink_bytes_per_parameter",
    "downlink_bytes_per_parameter",
    "peak_rss_mb",
    "max_error_steps",
}
PEERS = {"naive-ckks", "nvflare-default", "flower-secaggplus"}

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", "--params", "2e4", "--sites", "3"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_route_ran(report: dict[str, Any]) -> None:
    assert report["skipped"] == []
    assert {route["name"] for route in report["routes"]} > PEERS


def test_every_figure_is_there_and_positive(report: dict[str, Any]) -> None:
    for route in report["routes"]:
        assert set(route) >= KEYS
        positive = KEYS - {"name", "peak_rss_mb", "max_error_steps"}
        assert all(route[key] > 0 for key in positive)


def test_our_routes_are_exact(report: dict[str, Any]) -> None:
    ours = [route for route in report["routes"] if route["name"] not in PEERS]
    assert {route["max_error_steps"] for route in ours} == {0.0}


def test_peers_are_right_to_a_step(report: dict[str, Any]) -> None:
    theirs = [route for route in report["routes"] if route["name"] in PEERS]
    assert len(theirs) == len(PEERS)
    assert all(route["max_error_steps"] < 1 for route in theirs)
