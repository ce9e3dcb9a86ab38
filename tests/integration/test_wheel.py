"""What the wheel holds: the package with its configuration, and nothing beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(out),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_nothing_lands_beside_the_package(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fedsecure"}


def test_every_configuration_group_is_inside(names: list[str]) -> None:
    groups = {
        f"fedsecure/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")
    }
    assert groups <= set(names)


def test_the_reports_style_is_inside(names: list[str]) -> None:
    assert "fedsecure/report.css" in names


def test_the_license_is_inside(names: list[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in names)
