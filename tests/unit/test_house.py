"""The house rules that no linter knows: sizes, doors, sockets, the tree on disk."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.house import house_page
from fedsecure import registry

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fedsecure"
SOURCES = sorted(
    path
    for room in ("fedsecure", "clients", "server")
    for path in (ROOT / room).rglob("*.py")
)
DOORS = sorted(
    path
    for path in PACKAGE.rglob("__init__.py")
    if path.parent != PACKAGE and path.parent.name not in registry.SOCKETS
)
PLUGS = [
    (socket, name) for socket in registry.SOCKETS for name in registry.names(socket)
]
NAMELESS = {"utils", "helpers", "common", "core", "base", "manager", "misc"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, Function):
            yield node


def protocols() -> Iterator[tuple[str, list[str]]]:
    """Yield each Protocol's name with the methods it asks for; properties count."""
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Protocol"
                for base in node.bases
            ):
                methods = [n.name for n in node.body if isinstance(n, Function)]
                yield f"{shown(path)}: {node.name}", methods


def undocumented(path: Path) -> Iterator[str]:
    tree = parsed(path)
    if path.name != "__main__.py" and ast.get_docstring(tree) is None:
        yield "the module"
    holders: list[ast.Module | ast.ClassDef] = [tree]
    holders += [
        n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"
    ]
    for holder in holders:
        for node in holder.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name[0] == "_":
                continue
            if ast.get_docstring(node) is None:
                yield node.name


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_file_ends_at_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_function_ends_at_sixty_lines(path: Path) -> None:
    lengths = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions(path)}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_file_is_named_for_a_noun(path: Path) -> None:
    assert path.stem not in NAMELESS


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_everything_public_says_what_it_is(path: Path) -> None:
    assert list(undocumented(path)) == []


@pytest.mark.parametrize("path", DOORS, ids=shown)
def test_a_door_is_a_docstring_and_nothing_else(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize(("socket", "name"), PLUGS)
def test_a_plug_has_one_public_function_create(socket: str, name: str) -> None:
    tree = parsed(PACKAGE / socket / f"{name}.py")
    public = [n.name for n in tree.body if isinstance(n, Function) and n.name[0] != "_"]
    assert public == ["create"]


@pytest.mark.parametrize("socket", registry.SOCKETS)
def test_a_socket_has_one_contract_suite_over_all_its_plugs(socket: str) -> None:
    suite = ROOT / "tests" / "contract" / f"test_{socket}.py"
    assert suite.is_file()
    assert f'names("{socket}")' in suite.read_text(encoding="utf-8")


def test_a_protocol_has_at_most_four_methods() -> None:
    found = dict(protocols())
    assert len(found) > 10
    wide = {name for name, methods in found.items() if len(methods) > 4}
    assert wide == {"fedsecure/disk.py: Disk"}, "docs/adr/0001: the one exception"


def test_a_unit_test_lies_where_the_file_it_tests_lies() -> None:
    unit = ROOT / "tests" / "unit"
    strangers = {
        path.relative_to(unit).as_posix()
        for path in unit.rglob("test_*.py")
        if not (
            PACKAGE
            / path.relative_to(unit).parent
            / f"{path.stem.removeprefix('test_')}.py"
        ).is_file()
    }
    assert strangers == {"test_house.py"}


def test_a_file_of_tests_that_starts_a_federation_of_processes_says_so() -> None:
    """`make test` runs those one after the other, beside what bears it."""
    starts = re.compile(r'"deployment"|\bdeployed\b|\bDRILLS\b|"flower-superlink"')
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__)
    }
    real = {name for name, text in texts.items() if "mark.integration" in text}
    found = {name for name in real if starts.search(texts[name])}
    assert found > {"test_backends.py", "test_failover.py", "test_drills.py"}
    assert [name for name in sorted(found) if "mark.flower" not in texts[name]] == []


def test_the_page_of_the_house_is_the_tree_on_disk() -> None:
    written = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    assert written == house_page(), "run `make docs`"
