"""The policy's section `privacy`: each field stops a plan that promises less."""

import math
from dataclasses import replace

import pytest

from fedsecure.access.fields import Place
from fedsecure.access.privacyrules import (
    ACCOUNTANTS,
    MODES,
    RELATIONS,
    UNITS,
    PrivacyRules,
    Promise,
    read_rules,
    strictest,
)
from fedsecure.accounting import Relation
from fedsecure.errors import PolicyRefused
from fedsecure.privacy.plan import Mode
from fedsecure.registry import names
from fedsecure.update import JSON

SECTION: dict[str, JSON] = {
    "modes": ["none", "example_distributed", "example_local", "user_distributed"],
    "max_epsilon": 3.0,
    "delta": 1e-5,
    "min_noise_multiplier": 0.8,
    "max_sample_rate": 0.1,
    "per_run_epsilon": 1.0,
    "min_surviving_sites": 3,
    "max_colluding_sites": 2,
    "unit": "example",
    "relation": "add_or_remove_one",
    "accountant": "pld",
    "content_changes": "refuse",
}
NEW = (
    "per_run_epsilon",
    "min_surviving_sites",
    "max_colluding_sites",
    "unit",
    "relation",
    "accountant",
    "content_changes",
)
PROMISE = Promise(
    mode="example_distributed",
    unit="example",
    noise_multiplier=0.8,
    sample_rate=0.1,
    delta=1e-5,
    contributors=3,
    colluders=2,
)
LINES = {f"privacy.{name}": n for n, name in enumerate(SECTION, start=11)}
PLACE = Place("policy.projects[heart]", LINES).under("privacy")


def read(**changes: JSON) -> PrivacyRules:
    return read_rules({**SECTION, **changes}, "privacy")


def test_words_are_those_of_plan_and_accountants() -> None:
    assert set(MODES) == set(Mode)
    assert set(UNITS) == {mode.unit for mode in Mode}
    assert set(RELATIONS) == set(Relation)
    assert set(ACCOUNTANTS) == set(names("accounting"))


def test_a_plan_at_every_bound_is_served() -> None:
    read().check(PROMISE, PLACE)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mode", "silo", r"privacy.modes: the plan has 'silo'.*\(policy.yaml, line 11"),
        (
            "noise_multiplier",
            0.79,
            r"min_noise_multiplier: the plan has 0.79, at least 0.8 \(policy.yaml, li",
        ),
        ("sample_rate", 0.11, "max_sample_rate: the plan has 0.11, at most 0.1"),
        ("delta", 1.1e-5, "privacy.delta: the plan has 1.1e-05, at most 1e-05"),
        ("delta", math.nan, "privacy.delta: the plan has nan"),
        ("contributors", 2, "min_surviving_sites: the plan has 2, at least 3"),
        ("colluders", 1, "max_colluding_sites: the plan has 1, at least 2"),
    ],
)
def test_a_plan_below_a_bound_is_refused_by_field_and_line(
    field: str, value: str | float, said: str
) -> None:
    promise = replace(PROMISE, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(PolicyRefused, match=said):
        read().check(promise, PLACE)


def test_a_weaker_unit_than_the_policy_s_is_refused() -> None:
    said = r"privacy.unit: the plan has 'example', allowed: \['site', 'user'\]"
    with pytest.raises(PolicyRefused, match=said):
        read(unit="user").check(PROMISE, PLACE)


def test_a_stronger_unit_than_the_policy_s_is_served() -> None:
    promise = replace(PROMISE, mode="user_distributed", unit="user")
    read().check(promise, PLACE)


def test_colluders_are_nothing_where_no_noise_is_shared() -> None:
    promise = replace(PROMISE, mode="example_local", colluders=0)
    read().check(promise, PLACE)


def test_mode_none_has_no_bounds_but_must_be_allowed() -> None:
    read().check(Promise(), PLACE)
    with pytest.raises(PolicyRefused, match=r"modes: the plan has 'none'"):
        read(modes=["example_local"]).check(Promise(), PLACE)


def test_shared_noise_is_not_served_where_replace_one_is_counted() -> None:
    with pytest.raises(PolicyRefused, match=r"privacy.relation: noise of mode exam"):
        read(relation="replace_one").check(PROMISE, PLACE)


def test_local_noise_is_served_where_replace_one_is_counted() -> None:
    read(relation="replace_one").check(replace(PROMISE, mode="example_local"), PLACE)


def test_fields_left_out_add_no_bound_of_their_own() -> None:
    section = {k: v for k, v in SECTION.items() if k not in NEW}
    rules = read_rules(section, "privacy")
    assert rules.per_run_epsilon == rules.max_epsilon == 3.0
    assert (rules.min_surviving_sites, rules.max_colluding_sites) == (1, 1)
    assert (rules.unit, rules.relation) == ("example", "add_or_remove_one")
    assert (rules.accountant, rules.content_changes) == ("pld", "inherit")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("modes", ["example_locl"], r"modes: \['example_locl'\] are none of"),
        ("modes", "none", "must be a list of texts"),
        ("per_run_epsilon", 3.1, "per_run_epsilon=3.1, must be above 0 and at most"),
        ("per_run_epsilon", 0, "per_run_epsilon=0.0, must be above 0"),
        ("per_run_epsilon", "1", "per_run_epsilon='1', must be a number"),
        ("min_surviving_sites", 2.5, "min_surviving_sites=2.5, must be a whole"),
        ("min_surviving_sites", -1, "min_surviving_sites=-1, must be a whole"),
        ("max_colluding_sites", True, "max_colluding_sites=True, must be a whole"),
        ("unit", "person", "unit='person', must be example or user or site"),
        ("relation", "swap", "relation='swap', must be add_or_remove_one or"),
        ("accountant", "gdp", "accountant='gdp', must be pld or rdp"),
        ("content_changes", True, "content_changes=True, must be inherit or refuse"),
        ("min_surviving", 3, "unknown field 'min_surviving'; did you mean"),
    ],
)
def test_a_value_that_is_none_is_refused(field: str, value: JSON, said: str) -> None:
    with pytest.raises(PolicyRefused, match=said):
        read(**{field: value})


def test_rdp_alone_cannot_count_replace_one() -> None:
    with pytest.raises(PolicyRefused, match="accountant=rdp values nothing"):
        read(relation="replace_one", accountant="rdp")


@pytest.mark.parametrize("field", ["modes", "max_epsilon", "delta", "max_sample_rate"])
def test_fields_that_must_be_there_must_be_there(field: str) -> None:
    section = {k: v for k, v in SECTION.items() if k != field}
    with pytest.raises(PolicyRefused, match=f"privacy: missing {field}"):
        read_rules(section, "privacy")


@pytest.mark.parametrize(
    ("accountant", "asked"), [("rdp", ("rdp",)), ("pld", ("rdp", "pld"))]
)
def test_accountant_says_who_is_asked(accountant: str, asked: tuple[str, ...]) -> None:
    assert read(accountant=accountant).guards == asked


def test_the_strictest_of_several_projects_holds_field_by_field() -> None:
    one = read(max_epsilon=2.0, per_run_epsilon=0.5, content_changes="inherit")
    two = read(delta=1e-6, accountant="rdp")
    held = strictest([one, two])
    assert (held.max_epsilon, held.per_run_epsilon, held.delta) == (2.0, 0.5, 1e-6)
    assert (held.accountant, held.content_changes) == ("rdp", "refuse")
    assert strictest([one, read(relation="replace_one")]).relation == "replace_one"


@pytest.mark.parametrize(
    ("modes", "unit", "weakest"),
    [
        (["example_local", "user_distributed"], "example", "example"),
        (["none", "user_distributed"], "example", "user"),
        (["user_distributed", "silo"], "example", "user"),
        (["example_local", "user_distributed"], "user", "user"),
        (["silo"], "example", "site"),
        (["none"], "example", "example"),
    ],
)
def test_the_weakest_unit_served_follows_from_unit_and_modes(
    modes: list[JSON], unit: str, weakest: str
) -> None:
    assert read(modes=modes, unit=unit).weakest == weakest


def test_one_project_that_serves_rows_makes_the_account_one_of_rows() -> None:
    persons, rows = read(unit="user"), read(unit="example")
    assert strictest([persons, persons]).unit == "user"
    assert strictest([persons, rows]).unit == "example"
