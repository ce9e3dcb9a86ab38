"""What an audit leaves: a page that stands alone, pictures, figures for programs."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsecure.audit.finding import Check, Tier, Verdict
from fedsecure.audit.page import SHOWS_NOT
from fedsecure.audit.programme import PLAN
from fedsecure.audit.report import write_audit
from fedsecure.errors import ConfigurationError
from fedsecure.pictures import Picture

WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
CHECKS = [
    Check("<b>name", Verdict.PASSED, 1.5, "|z| <= 3.3", "1 < 2 & more"),
    Check("nothing", Verdict.FAILED, float("nan"), "", "it failed"),
]
TIER = Tier(2, "A title?", "A lead.", CHECKS, [Picture("p", "a<lt", b"png", b"<svg/>")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("audit") / "new" / "folder"
    assert write_audit(made, [TIER], PLAN, WHEN) == made / "audit.html"
    return made


def test_the_page_stands_alone(folder: Path) -> None:
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_words_are_escaped(folder: Path) -> None:
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;name" in page
    assert "1 &lt; 2 &amp; more" in page
    assert 'alt="a&lt;lt"' in page


def test_the_verdict_comes_first(folder: Path) -> None:
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert '<p class="verdict"><b class="failed">failed</b>' in page


def test_the_page_says_what_cannot_be_shown(folder: Path) -> None:
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert page.count("What it cannot show") == 1
    assert all(line.split("'")[0] in page for line in SHOWS_NOT)


def test_pictures_lie_beside_it(folder: Path) -> None:
    assert (folder / "p.png").read_bytes() == b"png"


def test_figures_are_json_without_nan(folder: Path) -> None:
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert found["verdict"] == "failed"
    assert found["tiers"][0]["checks"][1]["value"] is None
    assert found["plan_digest"] == PLAN.digest().hex()
    assert found["when"] == "2026-01-02T03:04:00+00:00"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--out"):
        write_audit(tmp_path / "file" / "below", [TIER], PLAN, WHEN)
