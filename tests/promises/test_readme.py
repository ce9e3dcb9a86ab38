"""What the README says is there: every link, every command, every promise's test."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsecure.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)\)")
COMMAND = re.compile(r"fedsecure ((?:[a-z]+ ?){1,2})")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert missing == []


def test_every_promise_names_a_test() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    table = text.split("## Promises")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    assert all("tests/" in row for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = " ".join(
        re.findall(r"`[^`\n]+`|^[^`]*fedsecure [a-z].*$", text, re.MULTILINE)
    )
    known = {
        c.name or c.callback.__name__ for c in app.registered_commands if c.callback
    }
    known |= {group.name for group in app.registered_groups if group.name}
    used = {found.split()[0] for found in COMMAND.findall(code)}
    spoken = used - known - {"run", "makes", "does", "is", "has", "and"}
    assert not {word for word in spoken if f"`fedsecure {word}" in text}


def test_help_of_every_command_works() -> None:
    for command in (
        "run",
        "demo",
        "provision",
        "aggregator",
        "node",
        "status",
        "doctor",
    ):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
