"""The app bundle every SuperLink hands out: two small files and the keys they may read.

What runs at a site is the installed package, not what arrived: the bundle names two
objects of it (HOUSE.md section 3).
"""

from importlib.resources import files
from pathlib import Path

from fedsecure.flower.link import build_bundle

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedsecure-app"
version = "1.0.0"
description = "fedsecure"
license = {file = "LICENSE"}
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "fedsecure"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

[tool.flwr.app.config]
kit = ""
"""
_LICENSE = "Licensed under the Apache License, Version 2.0.\n"


def make_bundle(folder: Path) -> bytes:
    """Write the app into `folder` and return it as a FAB."""
    (folder / "pyproject.toml").write_text(_PYPROJECT, encoding="utf-8")
    (folder / "LICENSE").write_text(_LICENSE, encoding="utf-8")
    for name in ("clients", "server"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("", encoding="utf-8")
        text = (_source(name) / "app.py").read_text(encoding="utf-8")
        (folder / name / "app.py").write_text(text, encoding="utf-8")
    return build_bundle(folder)


def _source(name: str) -> Path:
    """Return the folder of an entry point: the wheel's, or the checkout's."""
    packaged = Path(str(files("fedsecure") / "bundle" / name))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / name
