import dataclasses
import json

import pytest

from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.plan import (
    Mode,
    PrivacyPlan,
    check_delta,
    event_document,
    read_event,
)
from fedsecure.trainer import JSON

ADD = Relation.ADD_OR_REMOVE_ONE
PLAN = PrivacyPlan(
    mode=Mode.EXAMPLE_LOCAL,
    relation=ADD,
    clip_norm=1.0,
    noise_multiplier=1.1,
    sample_rate=0.1,
    steps_per_round=10,
    rounds=8,
    delta=1e-5,
    divisor=32.0,
)
NAN = float("nan")


def _with(**changes: JSON) -> dict[str, JSON]:
    return {**PLAN.document(), **changes}


def test_event_is_one_rounds_steps() -> None:
    assert PLAN.event() == PrivacyEvent("poisson_gaussian", 1.1, 0.1, 10)


def test_event_of_all_rounds_is_their_steps_together() -> None:
    assert PLAN.event(PLAN.rounds).steps == 80


def test_event_of_no_rounds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rounds=0"):
        PLAN.event(0)


def test_document_comes_back_the_same() -> None:
    wire = json.loads(json.dumps(PLAN.document()))
    assert PrivacyPlan.from_document(wire) == PLAN


def test_document_of_plain_json_values_only() -> None:
    kinds = {type(value) for value in PLAN.document().values()}
    assert kinds == {str, int, float}


def test_mode_none_comes_back_the_same() -> None:
    plan = PrivacyPlan(Mode.NONE)
    assert PrivacyPlan.from_document(plan.document()) == plan


def test_digest_does_not_depend_on_how_a_number_is_written() -> None:
    same = PrivacyPlan.from_document(_with(clip_norm=1, divisor=32))
    assert same.digest() == PLAN.digest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", 1.5),
        ("noise_multiplier", 1.2),
        ("sample_rate", 0.2),
        ("steps_per_round", 11),
        ("rounds", 9),
        ("delta", 1e-6),
        ("divisor", 33.0),
        ("relation", "replace_one"),
    ],
)
def test_digest_names_every_field(name: str, value: JSON) -> None:
    other = PrivacyPlan.from_document(_with(**{name: value}))
    assert other.digest() != PLAN.digest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", 0.0),
        ("clip_norm", -1.0),
        ("clip_norm", NAN),
        ("clip_norm", float("inf")),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", NAN),
        ("sample_rate", 0.0),
        ("sample_rate", 1.0001),
        ("sample_rate", NAN),
        ("delta", 0.0),
        ("delta", 0.5),
        ("delta", NAN),
        ("divisor", 0.0),
        ("divisor", NAN),
        ("steps_per_round", 0),
        ("rounds", 0),
    ],
)
def test_value_out_of_bounds_is_refused_with_value_and_bound(
    name: str, value: float
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=.*must be from"):
        PrivacyPlan.from_document(_with(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", "1.0"),
        ("clip_norm", True),
        ("clip_norm", None),
        ("steps_per_round", 1.5),
        ("rounds", NAN),
        ("rounds", float("inf")),
    ],
)
def test_value_of_another_type_is_refused(name: str, value: JSON) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=.*is not a"):
        PrivacyPlan.from_document(_with(**{name: value}))


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown fields \['sigma'\]"):
        PrivacyPlan.from_document(_with(sigma=1.0))


@pytest.mark.parametrize("name", sorted(PLAN.document()))
def test_missing_field_is_refused(name: str) -> None:
    document = PLAN.document()
    del document[name]
    with pytest.raises(ConfigurationError, match=rf"missing fields \['{name}'\]"):
        PrivacyPlan.from_document(document)


@pytest.mark.parametrize("mode", ["example_central", "shared", "", None, 1])
def test_mode_that_does_not_work_is_refused(mode: JSON) -> None:
    with pytest.raises(ConfigurationError, match=r"privacy mode .* is unknown"):
        PrivacyPlan.from_document(_with(mode=mode))


def test_unknown_relation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"relation .* is unknown"):
        PrivacyPlan.from_document(_with(relation="zero_out"))


def test_another_format_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="format=2, this version: 1"):
        PrivacyPlan.from_document(_with(format=2))


def test_mode_none_takes_no_number_that_would_do_nothing() -> None:
    with pytest.raises(ConfigurationError, match=r"clip_norm=1\.0 does nothing"):
        PrivacyPlan(Mode.NONE, clip_norm=1.0)


def test_mode_none_has_no_event() -> None:
    with pytest.raises(ConfigurationError, match="mode none has no event"):
        PrivacyPlan(Mode.NONE).event()


def test_plan_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigurationError, match=r"sample_rate=2\.0"):
        dataclasses.replace(PLAN, sample_rate=2.0)


@pytest.mark.parametrize("rows", [100_000, 100_001])
def test_delta_that_could_publish_a_row_is_refused(rows: int) -> None:
    with pytest.raises(ConfigurationError, match=r"below 1/rows = 1e-05"):
        PLAN.check_rows(rows)


def test_delta_below_one_over_rows_is_taken() -> None:
    PLAN.check_rows(99_999)


def test_no_rows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rows=0"):
        check_delta(1e-5, 0)


def test_mode_none_asks_nothing_of_the_rows() -> None:
    PrivacyPlan(Mode.NONE).check_rows(1)


def test_delta_of_a_plan_for_users_is_compared_with_users_by_name() -> None:
    users = dataclasses.replace(
        PLAN,
        mode=Mode.USER_DISTRIBUTED,
        steps_per_round=1,
        min_contributors=2,
        max_colluders=1,
    )
    with pytest.raises(ConfigurationError, match=r"below 1/users = 1e-05"):
        users.check_rows(100_000)


def test_event_comes_back_from_its_document() -> None:
    wire = json.loads(json.dumps(event_document(PLAN.event())))
    assert read_event(wire) == PLAN.event()


def test_discrete_event_survives_the_ledger() -> None:
    event = PrivacyEvent("poisson_discrete_gaussian", 6.3, 0.2, 40, 4, 30.5, 650)
    wire = json.loads(json.dumps(event_document(event)))
    assert read_event(wire) == event


def test_continuous_event_is_written_as_it_always_was() -> None:
    fields = ["noise_multiplier", "sample_rate", "steps", "type"]
    assert sorted(event_document(PLAN.event())) == fields


def test_half_of_the_grid_of_an_event_is_refused() -> None:
    event = PrivacyEvent("poisson_discrete_gaussian", 6.3, 0.2, 40, 4, 30.5, 650)
    document = event_document(event)
    del document["dimension"]
    with pytest.raises(KeyError, match="dimension"):
        read_event(document)


def test_users_are_what_delta_is_compared_with_where_they_are_the_unit() -> None:
    assert Mode.USER_DISTRIBUTED.units(rows=400, users=90) == 90


@pytest.mark.parametrize("mode", [Mode.EXAMPLE_DISTRIBUTED, Mode.EXAMPLE_LOCAL])
def test_rows_are_what_delta_is_compared_with_elsewhere(mode: Mode) -> None:
    assert mode.units(rows=400, users=90) == 400


def test_a_site_that_knows_no_users_is_refused_where_they_are_the_unit() -> None:
    with pytest.raises(ConfigurationError, match=r"set data\.user_column"):
        Mode.USER_DISTRIBUTED.units(rows=400, users=0)


def test_each_mode_says_its_unit() -> None:
    units = {mode: mode.unit for mode in (Mode.USER_DISTRIBUTED, Mode.SILO)}
    assert units == {Mode.USER_DISTRIBUTED: "user", Mode.SILO: "site"}
