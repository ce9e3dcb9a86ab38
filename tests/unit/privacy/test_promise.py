"""Every epsilon with whom it holds against."""

from dataclasses import replace

import pytest

from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.privacy.promise import (
    mean_noise,
    of_the_worst_off,
    promises,
    silo_warning,
)

PLAN = PrivacyPlan(
    Mode.EXAMPLE_DISTRIBUTED,
    clip_norm=1.0,
    noise_multiplier=4.0,
    sample_rate=1.0,
    steps_per_round=1,
    rounds=8,
    delta=1e-5,
    divisor=1400.0,
    min_contributors=5,
    max_colluders=1,
)
LOCAL = replace(PLAN, mode=Mode.EXAMPLE_LOCAL, min_contributors=0, max_colluders=0)
SILO = replace(PLAN, mode=Mode.SILO, noise_multiplier=3.8)
SHARED = PrivacyEvent.of_shares(4.0, 1.0, 8, PLAN.shares, 1e4, 650)


def test_shared_noise_promises_less_against_all_other_sites() -> None:
    outside, others = promises(PLAN, [SHARED])
    assert outside.enforced.epsilon < others.enforced.epsilon


def test_the_second_epsilon_is_that_of_the_own_share_alone() -> None:
    _, others = promises(PLAN, [SHARED])
    alone = PrivacyEvent.of_shares(2.0, 1.0, 8, 1, 1e4, 650)  # z / sqrt(h)
    assert others.enforced == promises(PLAN, [alone])[0].enforced


def test_both_say_whom_they_hold_against() -> None:
    said = [promise.against for promise in promises(PLAN, [SHARED])]
    assert said == [
        "outsiders and aggregators, with at most one site on their side",
        "all other sites together",
    ]


def test_more_colluders_are_counted_in_words() -> None:
    more = replace(PLAN, max_colluders=2)
    assert "at most 2 sites" in promises(more, [SHARED])[0].against


def test_shared_noise_is_enforced_by_rdp_and_its_pld_is_nominal() -> None:
    for promise in promises(PLAN, [SHARED]):
        assert (promise.enforced.accountant, promise.nominal.nominal) == ("rdp", True)
        assert promise.nominal.epsilon < promise.enforced.epsilon


def test_local_noise_promises_one_epsilon_by_pld_against_everybody_else() -> None:
    (only,) = promises(LOCAL, [LOCAL.event(8)])
    assert only.against == "everybody but the site itself"
    assert (only.enforced.accountant, only.nominal.nominal) == ("pld", False)
    assert only.enforced.epsilon == only.nominal.epsilon


def test_no_privacy_promises_nothing() -> None:
    assert promises(PrivacyPlan(Mode.NONE), [SHARED]) == ()


def test_nothing_done_promises_nothing() -> None:
    assert promises(PLAN, []) == ()


def test_the_order_and_the_grouping_of_events_do_not_matter() -> None:
    once = replace(SHARED, steps=1)
    assert promises(PLAN, [once] * 8) == promises(PLAN, [SHARED])


def test_relation_and_delta_are_the_plans() -> None:
    spent = promises(PLAN, [SHARED])[0].enforced
    assert (spent.relation, spent.delta) == (Relation.ADD_OR_REMOVE_ONE, 1e-5)


def test_a_document_has_both_accountants_figures() -> None:
    (first, _) = promises(PLAN, [SHARED])
    assert first.document() == {
        "against": first.against,
        "epsilon": first.enforced.epsilon,
        "accountant": "rdp",
        "nominal_pld": first.nominal.epsilon,
    }


def test_ten_silos_at_epsilon_8_have_038_clip_norms_of_noise_a_coordinate() -> None:
    counted = replace(SILO, min_contributors=11)  # all ten shares: PRIVACY section 2
    assert mean_noise(counted, 10) == pytest.approx(0.38)


def test_few_silos_are_told_that_they_are_useless() -> None:
    said = silo_warning(SILO, 5, 650)
    assert said is not None
    assert "silo with 5 sites is useless here" in said
    assert "privacy=example_distributed" in said


def test_the_number_of_silos_that_it_takes_is_enough() -> None:
    wide = replace(SILO, min_contributors=1001)
    assert silo_warning(wide, 1000, 650) is None


def test_only_silo_is_warned() -> None:
    assert silo_warning(PLAN, 5, 650) is None


def test_of_several_sites_the_worst_off_is_told() -> None:
    less = replace(SHARED, steps=4)
    assert of_the_worst_off(PLAN, [[less], [SHARED], []]) == promises(PLAN, [SHARED])


def test_sites_that_charged_nothing_are_promised_nothing() -> None:
    assert of_the_worst_off(PLAN, [[], []]) == ()
