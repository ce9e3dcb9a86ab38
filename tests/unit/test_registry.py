"""Names to plugs: a closed set, compared before anything is imported."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedsecure import registry
from fedsecure.errors import ConfigurationError, UnknownPlug

ROOT = Path(registry.__file__).parent


@pytest.mark.parametrize("socket", registry.SOCKETS)
def test_names_are_the_files_of_the_socket(socket: str) -> None:
    files = {p.stem for p in (ROOT / socket).glob("*.py")} - {"__init__"}
    assert registry.names(socket) == tuple(sorted(files))
    assert files


@pytest.mark.parametrize("socket", ["", "learning", "../stores", "stores/", "os"])
def test_unknown_socket_is_refused(socket: str) -> None:
    with pytest.raises(UnknownPlug, match="sockets: accounting, stores"):
        registry.names(socket)


@pytest.mark.parametrize(
    "name", ["", "__init__", "memory.MemoryStore", "../ledger", "os", "Memory"]
)
def test_name_that_is_no_file_of_the_socket_is_refused(name: str) -> None:
    with pytest.raises(UnknownPlug, match="choose one of: local, memory"):
        registry.load("stores", name)


def test_refused_name_imports_nothing() -> None:
    code = (
        "import sys; from fedsecure import registry; before = set(sys.modules)\n"
        "try: registry.load('stores', 'antigravity')\n"
        "except registry.UnknownPlug: print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_one_plug_is_imported_and_no_other() -> None:
    code = (
        "import sys; from fedsecure import registry\n"
        "registry.load('stores', 'memory')\n"
        "print([m for m in sys.modules if m.startswith('fedsecure.stores.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['fedsecure.stores.memory']"


def test_missing_package_of_a_plug_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> ModuleType:
        raise ModuleNotFoundError("no", name="tenseal")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigurationError, match="he=bfv needs the package 'tenseal'"):
        registry.load("he", "bfv")
