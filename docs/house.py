"""Writes docs/house.md: the tree on disk, its layers and what each file owns.

The words are the files' own first sentences, the layers are import-linter's: the page
cannot say anything that the code does not. `make docs` writes it, a test compares it.
"""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_HEAD = """# The house

Written by `make docs` from the first sentence of each file and from the layers in
`pyproject.toml`; `tests/unit/test_house.py` refuses a page that differs from the tree.

A file may import only from smaller **L** (and, without cycles, from its own folder).
What is marked **S** belongs to the site side: the server side never loads it. The
folders `accounting stores metadata he backends` are sockets: Protocols in `__init__`,
one plug per file; plugs are found by `fedsecure.registry`, never imported. Any other
folder's `__init__.py` is a door: a docstring, nothing else. What was added to the first
design is recorded in `docs/adr/`.

| L | S | file | owns |
|---|---|---|---|
"""


def house_page(root: Path = ROOT) -> str:
    """Return the page for the tree below `root`."""
    layers, site_side = _contracts(root)
    package = root / "fedsecure"
    lines = []
    for path in sorted(package.rglob("*.py"), key=lambda p: _order(p, package, layers)):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        own = name.removesuffix(".__init__")
        side = any(own == s or own.startswith(f"{s}.") for s in site_side)
        shown = path.relative_to(package).as_posix()
        layer = layers.get(_top(path, package), "")
        lines.append(f"| {layer} | {'S' if side else ''} | `{shown}` | {_owns(path)} |")
    return _HEAD + "\n".join(lines) + "\n"


def _contracts(root: Path) -> tuple[dict[str, int], list[str]]:
    """Return the layer of each top-level name, from 0 up, and the site side's names."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {c["name"]: c for c in settings["tool"]["importlinter"]["contracts"]}
    listed = reversed(contracts["imports point down"]["layers"])
    layers = {
        name.strip(" ()"): number
        for number, layer in enumerate(listed)
        for name in layer.split("|")
    }
    return layers, contracts["the site side has a closed door"]["protected_modules"]


def _top(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def _order(path: Path, package: Path, layers: dict[str, int]) -> tuple[int, str, str]:
    top = _top(path, package)
    return layers.get(top, -1), top, path.as_posix()


def _owns(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return first.rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    (ROOT / "docs" / "house.md").write_text(house_page(), encoding="utf-8")
