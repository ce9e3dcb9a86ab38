"""A certificate as people read it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fedsecure.certificate.page import certificate_page
from fedsecure.certificate.statement import statement
from fedsecure.certificate.traces import traces_of_folder
from tests.fakes.certified import (
    COUNTING,
    LOCAL,
    NONE,
    SHARED,
    WHEN,
    Keys,
    left_by_a_run,
)
from tests.unit.test_report import Outline

AUDIT = {
    "sha256": "00",
    "when": "2026-11-25",
    "verdict": "passed",
    "noise_multiplier": 1.0,
    "fedsecure": "0.1.0",
    "tiers": [
        {
            "tier": 2,
            "title": "Mechanism",
            "verdict": "passed",
            "checks": [
                {
                    "name": "epsilon",
                    "verdict": "passed",
                    "bound": "at most 4.377",
                    "said": "65,520 trials at 99.9%: at least 4.1.",
                }
            ],
        }
    ],
    "cannot_show": [],
}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    keys, found = Keys(), {}
    for name, privacy in (("shared", SHARED), ("local", LOCAL), ("none", NONE)):
        folder = left_by_a_run(tmp_path_factory.mktemp(name), keys, privacy)
        traces = traces_of_folder(folder, keys.roster)
        found[name] = statement(traces, keys.issuer(), WHEN, audit=None)
    return found


@pytest.mark.parametrize("name", ["shared", "local", "none"])
def test_every_tag_is_closed_and_there_is_no_script(
    bodies: dict[str, dict[str, Any]], name: str
) -> None:
    reader = Outline()
    reader.feed(certificate_page(bodies[name], "00"))
    assert reader.open == []
    assert "script" not in reader.tags
    assert reader.links == []


def test_both_epsilons_stand_first(bodies: dict[str, dict[str, Any]]) -> None:
    body = bodies["shared"]
    page = certificate_page(body, "00")
    for row in body["epsilons"]:
        assert f"<b>{row['epsilon']:.3f}</b><p>against {row['against']}</p>" in page


def test_nothing_promised_is_the_first_thing_read(
    bodies: dict[str, dict[str, Any]],
) -> None:
    page = certificate_page(bodies["none"], "00")
    assert '<p class="verdict">Nothing is promised' in page
    assert '<b><span class="bad">none</span></b>' in page


def test_an_audit_is_shown_with_its_power(bodies: dict[str, dict[str, Any]]) -> None:
    page = certificate_page({**bodies["shared"], "audit": AUDIT}, "00")
    assert "65,520 trials at 99.9%: at least 4.1." in page
    assert "no proof" in page


def test_an_account_of_several_units_says_whose_epsilon_it_is(
    bodies: dict[str, dict[str, Any]],
) -> None:
    body = deepcopy(bodies["shared"])
    assert "protected different units" not in certificate_page(body, "00")
    body["spending"][0]["units"] = ["example", "user"]
    assert "protected different units" in certificate_page(body, "00")


def test_no_audit_says_how_to_make_one(bodies: dict[str, dict[str, Any]]) -> None:
    assert "--audit DIR/audit.json" in certificate_page(bodies["shared"], "00")


def test_words_from_outside_are_escaped(bodies: dict[str, dict[str, Any]]) -> None:
    body = deepcopy(bodies["shared"])
    body["run"] = body["spending"][0]["dataset"] = "<b>x"
    body["not_covered"].append("<b>x")
    assert "<b>x" not in certificate_page(body, "00")


def test_signature_and_federation_are_named(bodies: dict[str, dict[str, Any]]) -> None:
    page = certificate_page(bodies["shared"], "c0ffee")
    assert "Signature c0ffee." in page
    assert bodies["shared"]["issuer"]["federation"] in page


def test_counts_have_a_section_with_noise_and_price(
    tmp_path: Path, bodies: dict[str, dict[str, Any]]
) -> None:
    keys = Keys()
    folder = left_by_a_run(tmp_path, keys, told=1, **COUNTING)
    traces = traces_of_folder(folder, keys.roster)
    said = certificate_page(statement(traces, keys.issuer(), WHEN, audit=None), "00")
    assert "correctly classified test rows and other test rows, of the last" in said
    assert "Gaussian noise of 8 rows on each" in said
    assert "left in plain, in no epsilon" in certificate_page(bodies["shared"], "00")
