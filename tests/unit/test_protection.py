"""What a report says of privacy and encryption."""

from typing import Any

import pytest

from fedsecure.pictures import Picture
from fedsecure.protection import encryption_section, epsilon_card, privacy_section
from tests.fakes import figures

PICTURE = Picture("epsilon", "words", b"", b"<svg/>")


def test_the_card_names_whom_each_epsilon_holds_against() -> None:
    name, value, note = epsilon_card(figures.shared())
    assert (name, value) == ("Epsilon, outsiders and aggregators", "2.999")
    assert note == "4.461 against all other sites together; δ 1e-05, add-or-remove-one"


def test_one_epsilon_has_its_adversary_in_the_note() -> None:
    name, value, note = epsilon_card(figures.summary()["privacy"])
    assert (name, value) == ("Epsilon", "7.998")
    assert note.startswith("against everybody but the site itself")


def test_no_privacy_is_no_epsilon() -> None:
    none = {"mode": "none", "promises": []}
    assert epsilon_card(none) == ("Epsilon", "none", "no differential privacy")
    assert "no promise" in privacy_section(none, None)


def test_both_epsilons_stand_with_accountant_and_nominal_pld() -> None:
    said = privacy_section(figures.shared(), PICTURE)
    assert (
        "<td>all other sites together</td><td class=number>4.461</td><td>rdp</td>"
        "<td class=number>4.100</td>"
    ) in said
    assert "with at most one site on their side" in said
    assert "no proven bound" in said


def test_the_relation_and_the_unit_are_printed() -> None:
    said = privacy_section(figures.shared(), None)
    assert "one example is protected, add-or-remove-one" in said
    assert "1 of them may collude" in said


def test_silos_that_drown_in_noise_are_told_first() -> None:
    warned = {**figures.shared(), "warning": "silo with 3 sites is useless here"}
    assert privacy_section(warned, None).startswith('<p class="bad">silo with 3 sites')


def test_masks_threshold_profile_and_downlink_are_told() -> None:
    said = encryption_section(figures.summary())
    assert "the shares of any 3 sites take them off a sum" in said
    assert "20: fields of 24 bits" in said
    assert "seeds: one polynomial of the sum" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"masking": "none"}, "<td>pairwise masks</td><td>none</td>"),
        ({"scheme": "insecure_plain"}, "insecure_plain (NOT encrypted)"),
        ({"downlink": "sum"}, "sum: both polynomials"),
    ],
)
def test_what_is_not_hidden_is_said(change: dict[str, Any], told: str) -> None:
    summary = figures.summary()
    summary["encryption"] = {**summary["encryption"], **change}
    assert told in encryption_section(summary)


def test_noisy_counts_are_told_with_noise_and_price() -> None:
    counts = {"noise_multiplier": 5.25, "charged": 1, "epsilon": 0.6857}
    said = privacy_section({**figures.shared(), "counts": counts}, None)
    assert "told once with discrete Gaussian noise of 5.25 rows" in said
    assert "By themselves they cost epsilon 0.686" in said
    often = privacy_section(
        {**figures.shared(), "counts": {**counts, "charged": 17}}, None
    )
    assert "told 17 times" in often


def test_no_counts_need_no_word() -> None:
    assert "counts of test rows" not in privacy_section(figures.shared(), None)
