import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure import registry
from fedsecure.accounting import COUNTS, Accountant, PrivacyEvent, Relation
from fedsecure.errors import (
    AttemptsSpent,
    BudgetExhausted,
    ConfigurationError,
    InputConflict,
    LedgerCorrupt,
    PolicyRefused,
)
from fedsecure.ledger import Ledger
from fedsecure.privacy.account import Reservation
from fedsecure.privacy.budget import ATTEMPTS, Budget, Ceiling, Content
from fedsecure.privacy.plan import AccountantFactory
from fedsecure.update import JSON, RoundId
from tests.fakes.paper import Paper, line_of
from tests.fakes.trainer import CountingAccountant

ADD = Relation.ADD_OR_REMOVE_ONE
RDP: AccountantFactory = registry.load("accounting", "rdp").create
PLD: AccountantFactory = registry.load("accounting", "pld").create
PLAN, OTHER_PLAN = b"p" * 32, b"q" * 32
EVENT = PrivacyEvent("poisson_gaussian", 2.0, 0.1, 10)
WARD = Content("ward", "fp-1", 1_000)
BYTES = b"outgoing"
SHA = hashlib.sha256(BYTES).digest()


def _ceiling(epsilon: float = 3.0, relation: Relation = ADD) -> Ceiling:
    return Ceiling(epsilon, 1e-5, relation, b"y" * 32)


def _open(
    paper: Paper,
    epsilon: float = 3.0,
    content: Content = WARD,
    guards: Sequence[AccountantFactory] = (RDP,),
) -> Budget:
    return Budget.open(cast("Ledger", paper), content, _ceiling(epsilon), guards)


def _answer(budget: Budget, number: int, run: str = "run") -> Reservation:
    made = budget.reserve(RoundId(run, number), PLAN, EVENT)
    budget.commit(made, SHA)
    return made


def _cost(steps: int, factory: AccountantFactory = RDP) -> float:
    accountant = factory(ADD)
    accountant.compose(PrivacyEvent("poisson_gaussian", 2.0, 0.1, steps))
    return accountant.epsilon(1e-5)


# --- what is written ------------------------------------------------------------------


def test_opening_writes_the_ceiling_once() -> None:
    paper = Paper()
    _open(paper)
    _open(paper)
    assert paper.actions() == ["budget.open"]
    assert paper.lines[0].object == "ward"
    assert paper.lines[0].detail == {
        "fingerprint": "fp-1",
        "max_epsilon": 3.0,
        "delta": 1e-5,
        "relation": "add_or_remove_one",
        "policy": "79" * 32,
    }


def test_row_count_is_never_written() -> None:
    paper = Paper()
    _answer(_open(paper, content=Content("ward", "fp", 7_654)), 1)
    assert "7654" not in repr(paper.lines)


def test_reservation_is_a_line_with_its_event() -> None:
    paper = Paper()
    made = _open(paper).reserve(RoundId("run", 4), PLAN, EVENT)
    line = paper.lines[made.seq]
    assert (line.action, line.run, line.round) == ("budget.reserve", "run", 4)
    assert line.detail["plan"] == PLAN.hex()
    assert line.detail["event"] == {
        "type": "poisson_gaussian",
        "noise_multiplier": 2.0,
        "sample_rate": 0.1,
        "steps": 10,
        "relation": "add_or_remove_one",
        "unit": "example",
    }


def test_commit_names_the_reservation_and_the_bytes() -> None:
    paper = Paper()
    made = _answer(_open(paper), 1)
    assert paper.lines[-1].action == "budget.commit"
    assert paper.lines[-1].detail == {"reserve": made.seq, "sha256": SHA.hex()}


def test_void_names_the_reservation_and_the_reason() -> None:
    paper = Paper()
    budget = _open(paper)
    made = budget.reserve(RoundId("run", 1), PLAN, EVENT)
    budget.void(made, "worker died")
    assert paper.lines[-1].action == "budget.void"
    assert paper.lines[-1].detail == {"reserve": made.seq, "reason": "worker died"}


# --- what is charged ------------------------------------------------------------------


def test_nothing_reserved_is_nothing_spent() -> None:
    assert _open(Paper()).epsilon(1e-5) == 0.0


def test_rounds_compose_over_runs() -> None:
    budget = _open(Paper())
    for number, run in enumerate(["one", "two", "one"], start=1):
        _answer(budget, number, run)
    assert budget.epsilon(1e-5) == pytest.approx(_cost(30), rel=1e-6)


def test_spending_is_split_by_run() -> None:
    budget = _open(Paper())
    for number, run in enumerate(["one", "two", "one"], start=1):
        _answer(budget, number, run)
    spent = budget.spent_by_run()
    assert spent == pytest.approx({"one": _cost(20), "two": _cost(10)}, rel=1e-6)


def test_void_refunds_nothing() -> None:
    budget = _open(Paper())
    made = budget.reserve(RoundId("run", 1), PLAN, EVENT)
    before = budget.epsilon(1e-5)
    budget.void(made, "worker died")
    assert budget.epsilon(1e-5) == before > 0


def test_a_restart_forgets_nothing() -> None:
    paper = Paper()
    _answer(_open(paper), 1)
    assert _open(paper).epsilon(1e-5) == pytest.approx(_cost(10))


def test_new_content_inherits_all_spending() -> None:
    paper = Paper()
    _answer(_open(paper), 1)
    again = _open(paper, content=Content("ward", "fp-2", 1_200))
    assert paper.actions()[-1] == "budget.open"
    assert again.epsilon(1e-5) == pytest.approx(_cost(10))


def test_a_raised_ceiling_leaves_old_spending_in_place() -> None:
    paper = Paper()
    _answer(_open(paper, 1.0), 1)
    raised = _open(paper, 8.0)
    assert raised.epsilon(1e-5) == pytest.approx(_cost(10))


def test_another_data_set_in_the_same_ledger_is_not_charged() -> None:
    paper = Paper()
    _answer(_open(paper), 1)
    other = _open(paper, content=Content("clinic", "fp-1", 1_000))
    assert other.epsilon(1e-5) == 0.0


def test_other_lines_of_the_ledger_are_passed_over() -> None:
    paper = Paper()
    paper.append("aggregate.opened", "ward", run="run", round=1)
    assert _open(paper).epsilon(1e-5) == 0.0


# --- the ceiling ----------------------------------------------------------------------


def test_ceiling_is_kept_and_used_up() -> None:
    budget, ceiling = _open(Paper(), 1.0), 1.0
    fit = next(n for n in range(1, 20) if _cost(10 * (n + 1)) > ceiling)
    for number in range(fit):
        _answer(budget, number + 1)
    with pytest.raises(BudgetExhausted):
        budget.reserve(RoundId("run", fit + 1), PLAN, EVENT)
    assert budget.epsilon(1e-5) <= ceiling


def test_refusal_writes_nothing_and_touches_nothing() -> None:
    paper = Paper()
    budget = _open(paper, 0.1)
    before = list(paper.lines)
    with pytest.raises(BudgetExhausted):
        budget.reserve(RoundId("run", 1), PLAN, EVENT)
    assert paper.lines == before


def test_refusal_says_spent_asked_ceiling_and_by_whom() -> None:
    budget = _open(Paper(), _cost(10) * 1.01)
    _answer(budget, 1, "spender")
    with pytest.raises(BudgetExhausted) as refused:
        budget.reserve(RoundId("late", 1), PLAN, EVENT)
    said = str(refused.value)
    for word in (
        f"{_cost(10):.4g} is spent",
        f"spender {_cost(10):.4g}",
        f"would make it {_cost(20):.4g}",
        f"the ceiling is {_cost(10) * 1.01}",
        "nothing was touched",
    ):
        assert word in said


def test_pld_is_asked_where_rdp_says_too_much() -> None:
    between = (_cost(10, PLD) + _cost(10, RDP)) / 2
    budget = _open(Paper(), between, guards=[RDP, PLD])
    budget.reserve(RoundId("run", 1), PLAN, EVENT)
    with pytest.raises(BudgetExhausted):
        _open(Paper(), between, guards=[RDP]).reserve(RoundId("run", 1), PLAN, EVENT)


def test_pld_is_not_asked_where_rdp_is_content() -> None:
    def dear(relation: Relation) -> Accountant:
        raise AssertionError

    _open(Paper(), guards=[RDP, dear]).reserve(RoundId("run", 1), PLAN, EVENT)


def test_replace_one_is_valued_by_pld_alone() -> None:
    ledger = cast("Ledger", Paper())
    ceiling = _ceiling(50.0, Relation.REPLACE_ONE)
    budget = Budget.open(ledger, WARD, ceiling, [RDP, PLD])
    budget.reserve(RoundId("run", 1), PLAN, EVENT)
    assert budget.epsilon(1e-5) > 1.5 * _cost(10, PLD)


def test_persons_spending_is_revalued_when_rows_are_asked_for() -> None:
    budget = _open(Paper(), epsilon=3.0)
    spent = PrivacyEvent("poisson_gaussian", 4.0, 1.0, 1)
    small = PrivacyEvent("poisson_gaussian", 100.0, 0.01, 1)
    budget.reserve(RoundId("persons", 1), PLAN, spent, "user")
    alone = budget.epsilon(1e-5)
    budget.reserve(RoundId("rows", 1), PLAN, small, "example")
    assert 3.0 > budget.epsilon(1e-5) > 1.9 * alone


def test_event_no_accountant_knows_is_refused_before_it_is_written() -> None:
    paper = Paper()
    budget = _open(paper)
    with pytest.raises(ConfigurationError, match="no accountant knows"):
        budget.reserve(RoundId("run", 1), PLAN, PrivacyEvent("magic", 1.0, 0.1, 1))
    assert paper.actions() == ["budget.open"]


def test_delta_of_one_over_rows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="below 1/rows"):
        _open(Paper(), content=Content("ward", "fp-1", 100_000))


PERSONS = Content("ward", "fp-1", 200_000, users=1_000)


def test_delta_is_compared_with_persons_where_no_weaker_unit_is_served() -> None:
    ceiling = replace(_ceiling(), unit="user")
    budget = Budget.open(cast("Ledger", Paper()), PERSONS, ceiling, [RDP])
    assert budget.epsilon(1e-5) == 0


def test_delta_is_compared_with_rows_where_rows_are_served_too() -> None:
    with pytest.raises(
        ConfigurationError, match=r"delta=1e-05, .* below 1/rows = 5e-06"
    ):
        Budget.open(cast("Ledger", Paper()), PERSONS, _ceiling(), [RDP])


def test_delta_of_one_over_persons_is_refused_with_the_bound() -> None:
    ceiling = replace(_ceiling(), unit="user", delta=2e-3)
    with pytest.raises(ConfigurationError, match=r"delta=0\.002, .* 1/users = 0\.001"):
        Budget.open(cast("Ledger", Paper()), PERSONS, ceiling, [RDP])


def test_persons_who_are_not_told_apart_count_as_rows() -> None:
    assert Content("ward", "fp-1", 10).counted("user") == (10, "rows")


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_ceiling_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigurationError, match="max_epsilon="):
        _ceiling(epsilon)


def test_budget_without_an_accountant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one accountant"):
        _open(Paper(), guards=[])


# --- one run's part -------------------------------------------------------------------


def _per_run(paper: Paper, epsilon: float, total: float = 50.0) -> Budget:
    ceiling = replace(_ceiling(total), per_run_epsilon=epsilon)
    return Budget.open(cast("Ledger", paper), WARD, ceiling, [RDP])


def test_one_run_stops_at_its_part_and_another_goes_on() -> None:
    budget = _per_run(Paper(), _cost(10) * 1.01)
    _answer(budget, 1, "greedy")
    with pytest.raises(BudgetExhausted):
        budget.reserve(RoundId("greedy", 2), PLAN, EVENT)
    _answer(budget, 1, "modest")


def test_refusal_of_a_run_s_part_says_spent_asked_and_bound() -> None:
    paper = Paper()
    budget = _per_run(paper, _cost(10) * 1.01)
    _answer(budget, 1, "greedy")
    before = list(paper.lines)
    with pytest.raises(BudgetExhausted) as refused:
        budget.reserve(RoundId("greedy", 2), PLAN, EVENT)
    said = str(refused.value)
    assert f"run 'greedy' has spent epsilon {_cost(10):.4g}" in said
    assert f"would make it {_cost(20):.4g}" in said
    assert f"may spend {_cost(10) * 1.01} (per_run_epsilon)" in said
    assert paper.lines == before


def test_a_run_s_part_is_remembered_over_a_restart() -> None:
    paper = Paper()
    _answer(_per_run(paper, _cost(10) * 1.01), 1, "greedy")
    with pytest.raises(BudgetExhausted, match="per_run_epsilon"):
        _per_run(paper, _cost(10) * 1.01).reserve(RoundId("greedy", 2), PLAN, EVENT)


def test_the_data_set_s_ceiling_holds_over_runs_within_their_parts() -> None:
    budget = _per_run(Paper(), _cost(10) * 1.01, total=_cost(20) * 1.01)
    _answer(budget, 1, "one")
    _answer(budget, 1, "two")
    with pytest.raises(BudgetExhausted, match=r"one .*, two "):
        budget.reserve(RoundId("three", 1), PLAN, EVENT)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_a_part_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigurationError, match="per_run_epsilon="):
        _per_run(Paper(), epsilon)


# --- other rows under the same id -----------------------------------------------------

OTHER_ROWS = Content("ward", "fp-2", 1_200)


def test_other_rows_are_a_line_that_says_what_they_inherit() -> None:
    paper = Paper()
    _answer(_open(paper), 1)
    _open(paper, content=OTHER_ROWS)
    assert paper.lines[-1].action == "budget.open"
    assert paper.lines[-1].detail["fingerprint"] == "fp-2"
    assert paper.lines[-1].detail["inherits"] == {
        "fingerprint": "fp-1",
        "reservations": 1,
    }


def test_other_rows_opened_again_are_no_new_line() -> None:
    paper = Paper()
    _open(paper)
    for _ in range(2):
        _open(paper, content=OTHER_ROWS)
    assert paper.actions() == ["budget.open"] * 2


def test_rows_that_change_to_and_fro_inherit_all_the_same() -> None:
    paper = Paper()
    _answer(_open(paper), 1)
    _answer(_open(paper, content=OTHER_ROWS), 2)
    back = _open(paper)
    assert back.epsilon(1e-5) == pytest.approx(_cost(20))
    assert paper.lines[-1].detail["inherits"] == {
        "fingerprint": "fp-2",
        "reservations": 2,
    }


def test_other_rows_are_refused_where_the_policy_says_so() -> None:
    paper = Paper()
    ceiling = replace(_ceiling(), content_may_change=False)
    for _ in range(2):
        Budget.open(cast("Ledger", paper), WARD, ceiling, [RDP])
    with pytest.raises(PolicyRefused, match=r"'ward': its rows are others.*fp-2, was"):
        Budget.open(cast("Ledger", paper), OTHER_ROWS, ceiling, [RDP])
    assert paper.actions() == ["budget.open"]


def test_a_changed_ceiling_is_not_taken_for_other_rows() -> None:
    paper = Paper()
    _open(paper)
    ceiling = replace(_ceiling(8.0), content_may_change=False)
    Budget.open(cast("Ledger", paper), WARD, ceiling, [RDP])
    assert "inherits" not in paper.lines[-1].detail


# --- receipts -------------------------------------------------------------------------

HASH = b"h" * 32


def test_receipt_names_commit_aggregator_and_head() -> None:
    paper = Paper()
    budget = _open(paper)
    made = _answer(budget, 1)
    budget.receipt("agg-1", made.seq, HASH)
    assert paper.lines[-1].action == "budget.receipt"
    assert paper.lines[-1].detail == {
        "commit": made.seq + 1,
        "aggregator": "agg-1",
        "head": {"seq": made.seq, "hash": HASH.hex()},
    }


def test_head_from_before_a_charge_is_no_receipt_of_it() -> None:
    paper = Paper()
    budget = _open(paper)
    made = _answer(budget, 1)
    budget.receipt("agg-1", made.seq - 1, HASH)
    assert paper.actions()[-1] == "budget.commit"


def test_one_receipt_stands_for_all_answers_before_it() -> None:
    paper = Paper()
    budget = _open(paper)
    for number in (1, 2):
        _answer(budget, number)
    budget.receipt("agg-1", 99, HASH)
    budget.receipt("agg-2", 99, HASH)
    assert paper.actions().count("budget.receipt") == 1
    _open(paper).receipt("agg-2", 99, HASH)
    assert paper.actions().count("budget.receipt") == 1


def test_void_and_open_reservations_have_no_receipt() -> None:
    paper = Paper()
    budget = _open(paper)
    budget.void(budget.reserve(RoundId("run", 1), PLAN, EVENT), "worker died")
    budget.reserve(RoundId("run", 2), PLAN, EVENT)
    budget.receipt("agg-1", 99, HASH)
    assert "budget.receipt" not in paper.actions()


def test_receipted_round_is_not_reserved_again_and_stays_charged() -> None:
    paper = Paper()
    budget = _open(paper)
    _answer(budget, 1)
    budget.receipt("agg-1", 99, HASH)
    again = _open(paper)
    with pytest.raises(InputConflict, match="is receipted already"):
        again.reserve(RoundId("run", 1), PLAN, EVENT)
    assert again.epsilon(1e-5) == pytest.approx(_cost(10))


@pytest.mark.parametrize("detail", [{}, {"commit": 1}, {"commit": 99}, {"commit": "x"}])
def test_receipt_of_no_answer_stops_the_node(detail: dict[str, JSON]) -> None:
    paper = Paper()
    _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)
    paper.append("budget.receipt", "ward", detail=detail)
    with pytest.raises(LedgerCorrupt, match=r"\(budget.receipt\) cannot be read"):
        _open(paper)


# --- one answer per round -------------------------------------------------------------


def test_committed_round_is_not_reserved_again() -> None:
    budget = _open(Paper())
    _answer(budget, 1)
    with pytest.raises(InputConflict, match="is committed already"):
        budget.reserve(RoundId("run", 1), PLAN, EVENT)


def test_round_in_flight_is_not_reserved_again() -> None:
    budget = _open(Paper())
    budget.reserve(RoundId("run", 1), PLAN, EVENT)
    with pytest.raises(InputConflict, match="is reserved already"):
        budget.reserve(RoundId("run", 1), PLAN, EVENT)


def test_voided_round_is_reserved_again_at_a_new_charge() -> None:
    budget = _open(Paper())
    first = budget.reserve(RoundId("run", 1), PLAN, EVENT)
    budget.void(first, "worker died")
    second = budget.reserve(RoundId("run", 1), PLAN, EVENT)
    assert second.seq != first.seq
    assert budget.epsilon(1e-5) == pytest.approx(_cost(20))


def test_voided_round_is_not_reserved_under_another_plan() -> None:
    budget = _open(Paper())
    budget.void(budget.reserve(RoundId("run", 1), PLAN, EVENT), "worker died")
    with pytest.raises(InputConflict, match="under another plan"):
        budget.reserve(RoundId("run", 1), OTHER_PLAN, EVENT)


def test_reservation_is_settled_once() -> None:
    budget = _open(Paper())
    made = _answer(budget, 1)
    with pytest.raises(InputConflict, match=f"line {made.seq}: it is committed"):
        budget.void(made, "second thoughts")
    with pytest.raises(InputConflict, match=f"line {made.seq}: it is committed"):
        budget.commit(made, SHA)


def test_digest_of_another_length_is_refused() -> None:
    budget = _open(Paper())
    made = budget.reserve(RoundId("run", 1), PLAN, EVENT)
    with pytest.raises(ConfigurationError, match="SHA-256 has 32"):
        budget.commit(made, b"short")


# --- recovery -------------------------------------------------------------------------


def test_reserved_with_bytes_in_the_outbox_becomes_committed() -> None:
    paper = Paper()
    _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)
    _open(paper).recover(lambda _: BYTES)
    assert paper.lines[-1].action == "budget.commit"
    assert paper.lines[-1].detail["sha256"] == SHA.hex()


def test_reserved_without_bytes_becomes_void() -> None:
    paper = Paper()
    _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)
    _open(paper).recover(lambda _: None)
    assert paper.lines[-1].action == "budget.void"


def test_recovery_leaves_what_is_settled_alone() -> None:
    paper = Paper()
    _answer(_open(paper), 1)
    before = list(paper.lines)
    _open(paper).recover(lambda _: BYTES)
    assert paper.lines == before


def test_recovery_twice_is_recovery_once() -> None:
    paper = Paper()
    _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)
    for _ in range(2):
        _open(paper).recover(lambda _: None)
    assert paper.actions() == ["budget.open", "budget.reserve", "budget.void"]


# --- attempts that came to nothing ----------------------------------------------------


def _lose(budget: Budget, number: int, run: str = "run") -> None:
    budget.void(budget.reserve(RoundId(run, number), PLAN, EVENT), "it died")


def _lost_all(paper: Paper) -> Budget:
    budget = _open(paper)
    for _ in range(ATTEMPTS):
        _lose(budget, 1)
    return budget


def test_a_round_is_not_tried_after_so_many_charges_that_came_to_nothing() -> None:
    paper = Paper()
    budget = _lost_all(paper)
    lines = len(paper.lines)
    with pytest.raises(AttemptsSpent, match="4 times in a row in this run, at most 4"):
        budget.reserve(RoundId("run", 1), PLAN, EVENT)
    assert len(paper.lines) == lines


def test_attempts_are_counted_in_the_ledger_and_not_in_the_process() -> None:
    paper = Paper()
    for _ in range(ATTEMPTS):
        _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)
        _open(paper).recover(lambda _: None)
    with pytest.raises(AttemptsSpent):
        _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)


def test_after_so_many_losses_each_further_round_is_tried_once() -> None:
    budget = _lost_all(Paper())
    for number in (2, 3):
        _lose(budget, number)
        with pytest.raises(AttemptsSpent):
            budget.reserve(RoundId("run", number), PLAN, EVENT)


def test_an_answer_kept_begins_the_count_anew() -> None:
    budget = _lost_all(Paper())
    _answer(budget, 2)
    for _ in range(ATTEMPTS):
        _lose(budget, 3)
    with pytest.raises(AttemptsSpent):
        budget.reserve(RoundId("run", 3), PLAN, EVENT)


def test_losses_that_a_restart_finds_late_are_not_in_a_row() -> None:
    """A pass that failed is voided by the next start, after rounds that were kept."""
    paper = Paper()
    budget = _open(paper)
    for number in range(1, ATTEMPTS):
        budget.reserve(RoundId("run", number), PLAN, EVENT)
    _answer(budget, ATTEMPTS)
    budget.reserve(RoundId("run", ATTEMPTS + 1), PLAN, EVENT)
    _open(paper).recover(lambda _: None)
    assert _open(paper).reserve(RoundId("run", ATTEMPTS + 1), PLAN, EVENT)


def test_attempts_of_one_run_are_not_those_of_another() -> None:
    budget = _lost_all(Paper())
    _lose(budget, 1, "other")
    assert budget.reserve(RoundId("other", 1), PLAN, EVENT).round.run == "other"


def test_counts_and_training_are_counted_apart() -> None:
    budget = _lost_all(Paper())
    counts = PrivacyEvent(COUNTS, 8.0, 1.0, 1)
    budget.void(budget.reserve(RoundId("run", 1), PLAN, counts), "it died")
    assert budget.reserve(RoundId("run", 1), PLAN, counts).event.kind == COUNTS


@given(outcomes=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=40))
def test_a_run_never_costs_more_than_its_rounds_and_a_few_between_two_answers(
    outcomes: list[tuple[int, bool]],
) -> None:
    paper = Paper()
    budget = _open(paper, 1e6, guards=(CountingAccountant,))
    tried, charges = set[int](), 0
    for number, kept in outcomes:
        try:
            made = budget.reserve(RoundId("run", number), PLAN, EVENT)
        except (AttemptsSpent, InputConflict):
            continue
        tried, charges = tried | {number}, charges + 1
        assert charges <= len(tried) + ATTEMPTS - 1
        if kept:
            budget.commit(made, SHA)
            tried, charges = set(), 0
        else:
            budget.void(made, "it died")


# --- lines nobody should have written -------------------------------------------------


@pytest.mark.parametrize(
    ("action", "detail"),
    [
        ("budget.refund", {"reserve": 0}),
        ("budget.commit", {"reserve": 7}),
        ("budget.commit", {}),
        ("budget.reserve", {"plan": "00"}),
        ("budget.reserve", {"plan": "00", "event": "poisson"}),
        ("budget.reserve", {"plan": "zz", "event": {"type": "x"}}),
        (
            "budget.reserve",
            {
                "plan": "00",
                "event": {
                    "type": "poisson_gaussian",
                    "noise_multiplier": "2",
                    "sample_rate": 0.1,
                    "steps": 10,
                },
            },
        ),
    ],
)
def test_line_that_cannot_be_read_stops_the_node(
    action: str, detail: dict[str, JSON]
) -> None:
    paper = Paper()
    paper.append(action, "ward", run="run", round=1, detail=detail)
    with pytest.raises(LedgerCorrupt, match=r"ledger line 0 \(budget\."):
        _open(paper)


def test_event_of_an_unknown_kind_in_the_past_blocks_new_reservations() -> None:
    paper = Paper()
    _open(paper).reserve(RoundId("run", 1), PLAN, EVENT)
    line = paper.lines[-1]
    event: dict[str, JSON] = {**cast("dict[str, JSON]", line.detail["event"])}
    event["type"] = "from_the_future"
    detail: dict[str, JSON] = {**line.detail, "event": event}
    paper.lines[-1] = line_of(1, line.action, "ward", "run", 1, detail)
    with pytest.raises(ConfigurationError, match="no accountant knows"):
        _open(paper).reserve(RoundId("run", 2), PLAN, EVENT)


def test_discrete_noise_is_valued_with_its_grid_after_a_restart() -> None:
    paper = Paper()
    # A grid so coarse that the event without it would cost a fifth less.
    event = PrivacyEvent("poisson_discrete_gaussian", 20.0, 1.0, 1, 400, 1.0, 26_010)
    for number in (1, 2):
        _open(paper, guards=(RDP,)).reserve(RoundId("run", number), PLAN, event)
    accountant = RDP(ADD)
    for _ in range(2):
        accountant.compose(event)
    again = _open(paper, guards=(RDP,)).epsilon(1e-5)
    assert again == pytest.approx(accountant.epsilon(1e-5), rel=1e-9)
    plain = RDP(ADD)
    plain.compose(PrivacyEvent("poisson_gaussian", 20.0, 1.0, 2))
    assert again > 1.2 * plain.epsilon(1e-5)


def test_a_round_is_paid_for_twice_only_for_two_things() -> None:
    budget, counts = _open(Paper()), PrivacyEvent.of_counts(8.0, 1)
    first = RoundId("run", 1)
    budget.reserve(first, PLAN, EVENT)
    budget.reserve(first, PLAN, counts)
    for event in (EVENT, counts):
        with pytest.raises(InputConflict, match="is reserved already"):
            budget.reserve(first, PLAN, event)
