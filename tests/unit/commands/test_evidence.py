"""The audit as a command: what it prints, leaves, and ends with."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsecure.audit import programme
from fedsecure.audit.finding import Check, Tier, Verdict
from fedsecure.audit.randomness import Meter
from fedsecure.commands.evidence import privacy_app
from fedsecure.errors import ConfigurationError


def finds(monkeypatch: pytest.MonkeyPatch, verdict: Verdict) -> None:
    check = Check("a check", verdict, 1.0, "<= 2", "It was looked at.")

    def part(meter: Meter) -> Tier:
        assert meter.secure
        return Tier(1, "A title?", "A lead.", [check])

    monkeypatch.setattr(programme, "_TIERS", {1: (part,)})


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(Verdict.PASSED, 0), (Verdict.FAILED, 1), (Verdict.INCONCLUSIVE, 1)],
)
def test_an_audit_ends_with_zero_only_if_all_passed(
    verdict: Verdict, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finds(monkeypatch, verdict)
    words = ["audit", "--out", str(tmp_path), "--tier", "1"]
    result = CliRunner().invoke(privacy_app, words)
    assert result.exit_code == code
    assert f"{verdict}" in result.output
    assert "It was looked at." in result.output
    assert (tmp_path / "audit.html").is_file()
    assert (tmp_path / "audit.json").is_file()


def test_an_unknown_tier_is_a_configuration_error(tmp_path: Path) -> None:
    words = ["audit", "--out", str(tmp_path), "--tier", "9"]
    result = CliRunner().invoke(privacy_app, words)
    assert isinstance(result.exception, ConfigurationError)
    assert list(tmp_path.iterdir()) == []


def test_an_audit_needs_a_folder() -> None:
    assert CliRunner().invoke(privacy_app, ["audit"]).exit_code == 2
