"""Canaries: planted fairly, found without noise, and a bound that can refute."""

import numpy as np
import pytest

from fedsecure.audit import membership as tier3
from fedsecure.audit.finding import Verdict
from fedsecure.audit.membership import Attack, membership, planted
from fedsecure.audit.programme import PLAN
from fedsecure.audit.randomness import Meter
from fedsecure.audit.victim import digits
from tests.fakes.randomness import Stream


def attack(shift: float, canaries: int = 400) -> Attack:
    rng = np.random.default_rng(4)
    members = rng.normal(shift, 1, canaries // 2)
    others = rng.normal(0, 1, canaries // 2)
    return Attack("made up", members, others, 0.9, 1e-5)


def test_canaries_have_wrong_labels_and_fair_coins() -> None:
    rows, found = digits(), planted(digits(), Stream("coins"))
    assert (rows.train_y[found.places] != found.rows.train_y[found.places]).all()
    assert 150 < found.inside.sum() < 250


def test_a_canary_outside_is_in_no_site_and_all_else_is() -> None:
    found = planted(digits(), Stream("coins"))
    members = set(found.members().tolist())
    assert members.isdisjoint(found.places[~found.inside].tolist())
    assert len(members) == len(found.rows.train_x) - (~found.inside).sum()


def test_scores_that_say_nothing_prove_nothing() -> None:
    assert attack(0.0).bound() == 0
    assert attack(0.0).auc()[1] < 0.5 < attack(0.0).auc()[2]


def test_scores_that_tell_all_prove_what_so_many_guesses_can() -> None:
    assert attack(20.0).bound() == pytest.approx(2.48, abs=0.01)


def test_a_bound_beyond_the_claim_fails() -> None:
    assert tier3._within(attack(20.0), 2.4).verdict is Verdict.FAILED
    assert tier3._within(attack(20.0), 2.5).verdict is Verdict.PASSED


def test_an_attack_that_does_not_work_shows_nothing() -> None:
    assert tier3._power(attack(0.0)).verdict is Verdict.INCONCLUSIVE
    assert tier3._power(attack(1.0)).verdict is Verdict.PASSED


def test_membership_that_the_loss_tells_is_not_passed() -> None:
    assert tier3._advantage(attack(1.0)).verdict is Verdict.INCONCLUSIVE
    assert tier3._advantage(attack(0.0)).verdict is Verdict.PASSED


def test_a_short_run_is_audited_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier3, "ROUNDS", 6)
    tier = membership(PLAN, Meter(Stream("run")))
    assert [check.verdict for check in tier.checks] == [Verdict.PASSED] * 3
    assert tier.figures["rounds"] == 6
    assert tier.pictures[0].png.startswith(b"\x89PNG")


@pytest.mark.reproduction
def test_a_run_hides_with_noise_what_it_tells_without() -> None:
    tier = membership(PLAN, Meter(Stream("run")))
    assert tier.verdict is Verdict.PASSED
    noisy, plain = tier.figures["with_noise"], tier.figures["without_noise"]
    assert isinstance(noisy, dict)
    assert isinstance(plain, dict)
    assert float(str(plain["auc"])) > 0.85
    assert float(str(noisy["auc"])) < 0.65
    assert float(str(noisy["accuracy"])) > 0.8
