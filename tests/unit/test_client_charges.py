"""What a site pays before a row is read."""

import pytest

from fedsecure.client_charges import Charges
from fedsecure.errors import BudgetExhausted, ConfigurationError, LedgerCorrupt
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.update import RoundId
from tests.fakes.counts import counting
from tests.fakes.federation import RUN, Federation, Site
from tests.fakes.trainer import LAYOUT

FIRST = RoundId(RUN, 1)


class Open:
    """A witness that vouches for any ledger."""

    def require(self) -> None:
        pass


def counter(federation: Federation) -> tuple[Charges, RunPlan, Site]:
    """Return a site's charges, the plan and the site, before anything was paid."""
    site = federation.sites["site-2"]
    half = site.half()
    charges = Charges(half._charges._budgets, Open())  # type: ignore[arg-type]
    return charges, read_plan(federation.plan), site


def kinds(site: Site) -> list[str]:
    return [
        f"{r.action} {dict(r.detail.get('event') or {}).get('type', '')}".strip()  # type: ignore[arg-type]
        for r in site.records()
        if r.action.startswith("budget.") and r.action != "budget.open"
    ]


def test_a_round_pays_for_training_alone_where_counts_come_at_the_end() -> None:
    charges, plan, site = counter(counting())
    assert len(charges.training(plan, FIRST, LAYOUT, 50)) == 1
    assert kinds(site) == ["budget.reserve poisson_gaussian"]


def test_a_round_that_tells_counts_pays_for_both_by_kind() -> None:
    charges, plan, site = counter(counting(each_round=True))
    assert len(charges.training(plan, FIRST, LAYOUT, 50)) == 2
    assert kinds(site) == [
        "budget.reserve poisson_gaussian",
        "budget.reserve discrete_gaussian_counts",
    ]


def test_counts_that_are_too_dear_leave_no_reservation_open() -> None:
    federation = counting(each_round=True)
    federation.sites["site-2"].max_epsilon = 1.0  # of one line, as toys count
    charges, plan, site = counter(federation)
    with pytest.raises(BudgetExhausted):
        charges.training(plan, FIRST, LAYOUT, 50)
    assert kinds(site) == ["budget.reserve poisson_gaussian", "budget.void"]


def test_without_privacy_nothing_is_paid() -> None:
    federation = Federation(private=False)
    charges = Charges({}, Open())  # type: ignore[arg-type]
    assert charges.training(read_plan(federation.plan), FIRST, LAYOUT, 50) == ()


def test_counts_that_no_plan_releases_are_not_paid_for() -> None:
    charges, plan, site = counter(Federation())
    with pytest.raises(ConfigurationError, match="releases no counts"):
        charges.counts(plan, FIRST, 50)
    assert kinds(site) == []


def test_counts_ask_the_witness_and_delta_too() -> None:
    charges, plan, site = counter(counting())
    with pytest.raises(ConfigurationError, match="must be above 0 and below 1/rows"):
        charges.counts(plan, FIRST, 100_000)
    blind = Charges(charges._budgets, site.half()._witness)
    with pytest.raises(LedgerCorrupt, match="nobody said how long"):
        blind.counts(plan, FIRST, 50)
    assert kinds(site) == []
