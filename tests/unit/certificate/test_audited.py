"""An audit's result, read for a certificate."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsecure.audit.finding import Check, Tier, Verdict
from fedsecure.audit.programme import PLAN
from fedsecure.audit.report import write_audit
from fedsecure.certificate.audited import read_audit
from fedsecure.errors import ConfigurationError

CHECK = Check(
    "noise", Verdict.PASSED, 0.5, "|z| <= 3.3", "10,000 coordinates at 99.9%."
)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    write_audit(tmp_path, [Tier(1, "Noise", "How", [CHECK])], PLAN, datetime.now(UTC))
    return tmp_path / "audit.json"


def test_the_verdict_stands_with_the_power_of_each_check(audit: Path) -> None:
    found = read_audit(audit)
    assert found["verdict"] == "passed"
    assert found["tiers"] == [
        {
            "tier": 1,
            "title": "Noise",
            "verdict": "passed",
            "checks": [
                {
                    "name": "noise",
                    "verdict": "passed",
                    "bound": "|z| <= 3.3",
                    "said": "10,000 coordinates at 99.9%.",
                }
            ],
        }
    ]


def test_the_file_is_named_by_its_digest(audit: Path) -> None:
    digest = hashlib.sha256(audit.read_bytes()).hexdigest()
    assert read_audit(audit)["sha256"] == digest


def test_what_an_audit_cannot_show_is_repeated(audit: Path) -> None:
    assert read_audit(audit)["cannot_show"]


def test_an_audit_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fedsecure privacy audit -o DIR"):
        read_audit(tmp_path / "audit.json")


@pytest.mark.parametrize(
    "document",
    ["{", [], 3, {"tiers": 3}, {"tiers": [3]}, {"tiers": [{"checks": [3]}]}],
)
def test_what_is_no_audit_is_refused(tmp_path: Path, document: object) -> None:
    path = tmp_path / "audit.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"is no audit\.json"):
        read_audit(path)
