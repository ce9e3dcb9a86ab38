"""The budget follows the policy file: at once, and never away from what was spent."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsecure.accounting import PrivacyEvent
from fedsecure.assembly.budgets import PolicyBudgets
from fedsecure.assembly.node import PolicyGate
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import BudgetExhausted, ConfigurationError, PolicyRefused
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.budget import Content
from fedsecure.update import RoundId
from tests.fakes.kits import RULES, kit, make_kits, sign

CONTENT = Content("data", "f" * 32, 50)
EVENT = PrivacyEvent("poisson_gaussian", 2.0, 0.1, 10)
PLAN = b"p" * 32


class Desk:
    def __init__(self, kits: Path, state: Path, content: Content = CONTENT) -> None:
        self.kits = kits
        gate = PolicyGate(kit(kits, "site-1"), SystemClock())
        key = SigningKey.from_bytes(b"k" * 32)
        path = state / "ledger.jsonl"
        self.ledger = Ledger.open(path, "site-1", key, SystemDisk(), SystemClock())
        try:
            self.budgets = PolicyBudgets(gate.policy, content, self.ledger)
        except BaseException:
            self.ledger.close()
            raise

    def allow(self, **privacy: object) -> None:
        """Let the steward sign another section `privacy`."""
        before = RULES["privacy"]
        assert isinstance(before, Mapping)
        rules = {**RULES, "privacy": {**before, **privacy}}
        sign(self.kits, "site-1", rules, datetime.now(UTC))

    def actions(self) -> list[str]:
        return [r.action for r in self.ledger.records()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(make_kits(tmp_path, 1), tmp_path / "state")
    yield made
    made.ledger.close()


def test_it_is_the_budget_of_one_data_set(desk: Desk) -> None:
    assert list(desk.budgets) == ["data"]
    assert len(desk.budgets) == 1
    assert desk.budgets.get("other") is None


def test_the_same_policy_is_the_same_budget(desk: Desk) -> None:
    assert desk.budgets["data"] is desk.budgets["data"]
    assert desk.actions().count("budget.open") == 1


def test_a_lowered_ceiling_acts_at_once_and_is_a_line(desk: Desk) -> None:
    desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)
    desk.allow(max_epsilon=0.01)
    with pytest.raises(BudgetExhausted, match=r"run 0\.79\d+\).*the ceiling is 0.01"):
        desk.budgets["data"].reserve(RoundId("run", 2), PLAN, EVENT)
    assert desk.actions().count("budget.open") == 2


def test_a_raised_ceiling_leaves_old_spending_in_place(desk: Desk) -> None:
    desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)
    spent = desk.budgets["data"].epsilon(1e-5)
    desk.allow(max_epsilon=100.0)
    assert desk.budgets["data"].epsilon(1e-5) == spent > 0


def test_a_reservation_is_committed_under_the_policy_that_came_meanwhile(
    desk: Desk,
) -> None:
    made = desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)
    desk.allow(max_epsilon=100.0)
    desk.budgets["data"].commit(made, bytes(32))
    assert desk.actions()[-1] == "budget.commit"


def test_a_run_s_part_is_the_policy_s(desk: Desk) -> None:
    desk.allow(per_run_epsilon=0.1)
    with pytest.raises(BudgetExhausted, match="per_run_epsilon"):
        desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)


def test_no_policy_is_no_budget(desk: Desk) -> None:
    (desk.kits / "site-1" / "policy.yaml").unlink()
    with pytest.raises(PolicyRefused, match="no policy, no round"):
        desk.budgets["data"]


def test_a_data_set_that_no_project_may_use_any_more_has_none(desk: Desk) -> None:
    sign(desk.kits, "site-1", {**RULES, "datasets": ["other"]}, datetime.now(UTC))
    with pytest.raises(PolicyRefused, match="no project may use data set 'data'"):
        desk.budgets["data"]


def test_rdp_alone_says_more_than_pld_and_is_believed(desk: Desk) -> None:
    desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)
    tight = desk.budgets["data"].epsilon(1e-5)
    desk.allow(accountant="rdp")
    assert desk.budgets["data"].epsilon(1e-5) > tight


def test_replace_one_costs_more_than_add_or_remove_one(desk: Desk) -> None:
    desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)
    less = desk.budgets["data"].epsilon(1e-5)
    desk.allow(relation="replace_one")
    assert desk.budgets["data"].epsilon(1e-5) > 1.4 * less


def test_other_rows_are_refused_at_start_where_the_policy_says_so(
    desk: Desk, tmp_path: Path
) -> None:
    desk.allow(content_changes="refuse")
    desk.ledger.close()
    other = replace(CONTENT, fingerprint="0" * 32)
    with pytest.raises(PolicyRefused, match="its rows are others than the ledger's"):
        Desk(desk.kits, tmp_path / "state", other)


def test_other_rows_inherit_where_the_policy_allows_them(
    desk: Desk, tmp_path: Path
) -> None:
    desk.budgets["data"].reserve(RoundId("run", 1), PLAN, EVENT)
    spent = desk.budgets["data"].epsilon(1e-5)
    desk.ledger.close()
    later = Desk(desk.kits, tmp_path / "state", replace(CONTENT, fingerprint="0" * 32))
    assert later.budgets["data"].epsilon(1e-5) == spent
    later.ledger.close()


def test_no_rows_are_no_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has 0 rows to train on"):
        Desk(make_kits(tmp_path, 1), tmp_path / "state", replace(CONTENT, rows=0))


def test_the_ledger_s_delta_is_of_persons_where_a_policy_serves_only_persons(
    tmp_path: Path,
) -> None:
    persons = Content("data", "f" * 32, rows=5_000_000, users=50)
    desk = Desk(make_kits(tmp_path, 1), tmp_path / "state", persons)
    try:
        by_rows = opened_delta(desk)
        desk.allow(unit="user")
        desk.budgets["data"]
        assert (by_rows, opened_delta(desk)) == (0.5 / 5_000_000, 1e-5)
    finally:
        desk.ledger.close()


def opened_delta(desk: Desk) -> object:
    [*_, last] = [r for r in desk.ledger.records() if r.action == "budget.open"]
    return last.detail["delta"]
