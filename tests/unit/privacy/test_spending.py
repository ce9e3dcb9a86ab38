"""Events by run and what they cost, by the first guard that is enough."""

from collections.abc import Callable

import pytest

from fedsecure import registry
from fedsecure.accounting import Accountant, PrivacyEvent, Relation
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.spending import Spending

ADD = Relation.ADD_OR_REMOVE_ONE
EVENT = PrivacyEvent("poisson_gaussian", 2.0, 0.1, 10)


class Priced:
    """An accountant with a price a step, and a record of who was asked."""

    def __init__(self, price: float, asked: list[float], knows: str) -> None:
        self._price, self._asked, self._knows = price, asked, knows
        self._steps = 0

    def supports(self, event: PrivacyEvent) -> bool:
        return event.kind == self._knows

    def compose(self, event: PrivacyEvent) -> None:
        self._steps += event.steps

    def epsilon(self, delta: float) -> float:
        assert delta == 1e-5
        self._asked.append(self._price)
        return self._price * self._steps


def priced(
    asked: list[float], price: float, knows: str = "poisson_gaussian"
) -> Callable[[Relation], Accountant]:
    return lambda _: Priced(price, asked, knows)


def test_nothing_costs_nothing() -> None:
    assert Spending("ward", ADD, [priced([], 1.0)]).all_with(delta=1e-5) == 0.0


def test_the_first_guard_that_is_enough_is_the_last_that_is_asked() -> None:
    asked: list[float] = []
    spending = Spending("ward", ADD, [priced(asked, 0.3), priced(asked, 0.2)])
    assert spending.all_with(EVENT, delta=1e-5, enough=3.0) == pytest.approx(3.0)
    assert asked == [0.3]


def test_the_least_of_all_guards_counts_where_none_is_enough() -> None:
    asked: list[float] = []
    guards = [priced(asked, 0.3), priced(asked, 0.1), priced(asked, 0.2)]
    spending = Spending("ward", ADD, guards)
    assert spending.all_with(EVENT, delta=1e-5) == pytest.approx(1.0)
    assert asked == [0.3, 0.1, 0.2]


def test_a_guard_that_does_not_know_an_event_is_passed_over() -> None:
    guards = [priced([], 0.1, "other"), priced([], 0.3)]
    assert Spending("ward", ADD, guards).all_with(EVENT, delta=1e-5) == pytest.approx(3)


def test_events_nobody_knows_are_refused() -> None:
    spending = Spending("ward", ADD, [priced([], 0.1, "other")])
    with pytest.raises(ConfigurationError, match="'ward' under add_or_remove_one"):
        spending.all_with(EVENT, delta=1e-5)


def test_runs_are_valued_apart_and_together() -> None:
    spending = Spending("ward", ADD, [priced([], 0.1)])
    for run in ("one", "two", "one"):
        spending.add(run, EVENT)
    assert spending.by_run(1e-5) == pytest.approx({"one": 2.0, "two": 1.0})
    assert spending.all_with(delta=1e-5) == pytest.approx(3.0)
    assert spending.run_with("two", EVENT, delta=1e-5) == pytest.approx(2.0)
    assert spending.run_with("new", EVENT, delta=1e-5) == pytest.approx(1.0)


def test_a_row_s_run_makes_what_persons_spent_before_dearer() -> None:
    spending = Spending("ward", ADD, [registry.load("accounting", "rdp").create])
    spending.add("persons", EVENT, "user")
    alone = spending.all_with(delta=1e-5)
    tiny = PrivacyEvent("poisson_gaussian", 100.0, 0.01, 1)
    assert spending.all_with(tiny, delta=1e-5, unit="user") < 1.05 * alone
    assert spending.all_with(tiny, delta=1e-5, unit="example") > 2 * alone
    assert spending.run_with("persons", tiny, delta=1e-5) > 2 * alone
