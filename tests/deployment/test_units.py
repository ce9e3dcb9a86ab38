"""The systemd units, read by systemd: they start what exists and give little away."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes.tools import said, tool

ROOT = Path(__file__).parents[2]
UNITS = {
    "aggregator": ROOT / "server" / "fedsecure-aggregator.service",
    "node": ROOT / "clients" / "fedsecure-node.service",
    "store": ROOT / "server" / "deploy" / "fedsecure-store.service",
}
DROP_IN = ROOT / "server" / "deploy" / "credentials.conf"
EXPOSURE = {"aggregator": 15, "node": 28, "store": 16}
"""At most, in tenths of systemd's own figure; the node may make network namespaces."""


@pytest.fixture
def analyze() -> str:
    return tool("systemd-analyze", "apt-get install systemd")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder of units whose programs are of this machine."""
    for path in UNITS.values():
        text = re.sub(r"/opt/\S+/bin/\w+", sys.executable, path.read_text())
        (tmp_path / path.name).write_text(text)
    folder = tmp_path / f"{UNITS['aggregator'].name}.d"
    folder.mkdir()
    shutil.copy(DROP_IN, folder)
    return tmp_path


@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_the_unit_and_has_nothing_to_say(
    analyze: str, installed: Path, name: str
) -> None:
    path = installed / UNITS[name].name
    code, text = said([analyze, "verify", "--man=no", str(path)])
    # What it says of other units of this machine is not about ours.
    assert [line for line in text.splitlines() if path.stem in line] == []
    assert code == 0, text


def test_systemd_objects_to_a_misspelt_setting(analyze: str, installed: Path) -> None:
    path = installed / UNITS["node"].name
    path.write_text(path.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    _, text = said([analyze, "verify", "--man=no", str(path)])
    assert "NoNewPrivilege" in text


@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_that_systemd_finds_is_small(
    analyze: str, installed: Path, name: str
) -> None:
    command = [analyze, "security", "--offline=yes", "--no-pager"]
    path = str(installed / UNITS[name].name)
    code, text = said([*command, f"--threshold={EXPOSURE[name]}", path])
    assert "Overall exposure level" in text
    assert code == 0, text.splitlines()[-1]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_failed_is_started_again_for_ever(name: str) -> None:
    text = UNITS[name].read_text()
    assert "StartLimitIntervalSec=0" in text
    assert re.search(r"^Restart=(always|on-failure)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["aggregator", "node"])
def test_a_daemon_writes_to_the_state_of_its_kit_and_not_to_its_keys(name: str) -> None:
    text = UNITS[name].read_text()
    assert "ProtectSystem=strict" in text
    assert re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE) == [
        "/etc/fedsecure/kit/state"
    ]


def test_credentials_reach_the_aggregator_as_files_of_mode_0600() -> None:
    text = DROP_IN.read_text()
    loaded = re.findall(r"^LoadCredential=([\w.-]+):", text, re.MULTILINE)
    assert loaded
    (copy,) = re.findall(
        r"^ExecStartPre=/usr/bin/install -m 0600 (.*)$", text, re.MULTILINE
    )
    assert re.findall(r"%d/([\w.-]+)", copy) == loaded
    assert "Environment" not in text
