"""One sum a round: what two sums would cost, and that no site helps to make a second.

Two sums of one round over sets that differ by one site differ by that site's update,
behind its own share of the noise alone: mu = sqrt(K)/z in place of 1/z (PRIVACY.md
section 11; delta of the Gaussian mechanism by Balle and Wang 2018, theorem 8).
"""

import json
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedsecure.accounting import GAUSSIAN, PrivacyEvent, Relation, guarantee
from fedsecure.client_round import ClientRound
from fedsecure.envelope import Envelope
from fedsecure.errors import (
    FedsecureError,
    ReleaseMissing,
    SecondAggregate,
    TooFewContributors,
    VerificationError,
)
from fedsecure.ledger import Ledger
from fedsecure.onesum import OneSum
from fedsecure.release import Release, release_of
from fedsecure.update import RoundId, Vector
from tests.fakes.federation import RUN, Federation, _ledger
from tests.fakes.forgery import own_update, release_over
from tests.fakes.fuses import Died, Until

ME = "site-2"
DELTA = 1e-5
ADD = Relation.ADD_OR_REMOVE_ONE
SITES = ("site-1", "site-2", "site-3")
"""Whose updates a round of `Desk` could be of; this is the second."""


def epsilon_of(mu: float) -> float:
    """Return epsilon at `DELTA` of a Gaussian, mu its sensitivity over sigma."""

    def excess(epsilon: float) -> float:
        upper = norm.cdf(mu / 2 - epsilon / mu)
        lower = norm.cdf(-mu / 2 - epsilon / mu)
        return float(upper - math.exp(epsilon) * lower - DELTA)

    return float(brentq(excess, 0.0, 100.0))


# --- what a second sum would cost -----------------------------------------------------


@pytest.mark.parametrize(
    ("z", "sites", "epsilon"),
    [
        (1, 1, 4.38),
        (1, 3, 8.4),
        (1, 5, 11.5),
        (1, 10, 17.9),
        (4, 1, 0.93),
        (4, 3, 1.7),
        (4, 5, 2.3),
        (4, 10, 3.3),
    ],
)
def test_one_site_behind_its_own_share_costs_what_is_written(
    z: float, sites: int, epsilon: float
) -> None:
    written = 0.005 if epsilon in {4.38, 0.93} else 0.05
    assert epsilon_of(math.sqrt(sites) / z) == pytest.approx(epsilon, abs=written)


@pytest.mark.parametrize("sites", [3, 5, 10])
def test_the_accountant_values_a_lonely_share_at_the_same(sites: int) -> None:
    alone = PrivacyEvent(GAUSSIAN, 1 / math.sqrt(sites), 1.0, 1)
    found = guarantee("pld", ADD, [alone], DELTA).epsilon
    assert found == pytest.approx(epsilon_of(math.sqrt(sites)), abs=0.01)


@pytest.mark.parametrize("sites", [3, 5, 10])
def test_own_share_of_a_discrete_event_is_the_lonely_one(sites: int) -> None:
    shared = PrivacyEvent.of_shares(1.0, 1.0, 1, sites, 2000.0, 100)
    assert shared.own_share().noise_multiplier == pytest.approx(1 / math.sqrt(sites))
    bound = guarantee("rdp", ADD, [shared.own_share()], DELTA).epsilon
    assert bound >= epsilon_of(math.sqrt(sites))


def test_two_sums_of_one_round_differ_by_one_site_s_update_exactly() -> None:
    federation = Federation(rounds=1, min_contributors=2)
    with pytest.raises(Died):  # before the sites are told: the run key lives
        federation.lead("agg-1", Until("agg-1", "head"))
    one, two = (opened(federation, sites) for sites in (SITES, ("site-1", "site-3")))
    expected = federation.sites[ME].trainer.step(first_model(federation))
    assert np.abs((3 * one - 2 * two) - expected).max() < 1e-5


def first_model(federation: Federation) -> Vector:
    return federation.sites[ME].trainer.initial({})[1]


def opened(federation: Federation, sites: tuple[str, ...]) -> Vector:
    """Return the mean that a site without a memory opens of a sum over `sites`."""
    site = federation.sites[ME]
    site.store.delete(f"{RUN}/model/1")
    half = site.half()
    half._sums._opened.clear()
    half._sums._roots.clear()
    model = half.recover(release_over(federation, sites, 1))
    return np.asarray(model - first_model(federation))


# --- the rule -------------------------------------------------------------------------


class Desk:
    """A site's memory of sums, and releases of two rounds to try it with."""

    def __init__(self) -> None:
        self.federation = Federation(min_contributors=2)
        self.federation.lead()
        half: ClientRound = self.federation.sites[ME].half()
        self.run = half._runs.get(RUN)
        self.ledger: Ledger = _ledger(
            self.federation.disks["agg-2"], ME, half._me.signing, self.federation.clock
        )
        self.sums = OneSum(ME, self.ledger)

    def release(self, *sites: str, number: int = 1) -> Release:
        digests = {s: self.digest(s, number) for s in sites}
        return release_of(RoundId(RUN, number), number - 1, digests, b"sum")

    def digest(self, site: str, number: int = 1) -> bytes:
        found: Envelope = own_update(self.federation, site, number)
        return found.digest()

    def open(self, *sites: str, number: int = 1) -> None:
        own = self.digest(ME, number)
        self.sums.open(self.run, self.release(*sites, number=number), lambda: own, 1)

    def reveal(self, *sites: str) -> None:
        rows = [(s, self.digest(s)) for s in sites]
        own = self.digest(ME)
        self.sums.reveal(self.run, RoundId(RUN, 1), rows, lambda: own, 1)

    def restart(self) -> None:
        self.sums = OneSum(ME, self.ledger)

    def actions(self) -> list[str]:
        return [r.action for r in self.ledger.records()][1:]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_sum_is_in_the_ledger_when_it_may_be_opened(desk: Desk) -> None:
    desk.open(*SITES)
    assert desk.actions() == ["aggregate.opened"]
    (line,) = desk.ledger.records()[1:]
    assert line.detail["release"] == desk.release(*SITES).digest().hex()


def test_the_same_sum_again_is_no_second_one(desk: Desk) -> None:
    desk.open(*SITES)
    desk.open(*SITES)
    assert desk.actions() == ["aggregate.opened"]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("second", [("site-1", ME), ("site-1", "site-3")])
def test_a_second_sum_over_fewer_sites_is_refused_and_kept(
    desk: Desk, second: tuple[str, ...], *, restarted: bool
) -> None:
    desk.open(*SITES)
    if restarted:
        desk.restart()
    with pytest.raises(SecondAggregate):
        desk.open(*second)
    assert desk.actions() == ["aggregate.opened", "aggregate.second"]


@pytest.mark.parametrize("restarted", [False, True])
def test_masks_opened_for_one_set_are_not_opened_for_another(
    desk: Desk, *, restarted: bool
) -> None:
    desk.reveal(*SITES)
    if restarted:
        desk.restart()
    desk.reveal(*SITES)
    with pytest.raises(SecondAggregate):
        desk.reveal("site-1", ME)
    assert desk.actions() == ["masks.revealed", "masks.second"]


def test_a_sum_over_another_set_than_its_masks_is_refused(desk: Desk) -> None:
    desk.reveal(*SITES)
    with pytest.raises(SecondAggregate):
        desk.open("site-1", ME)


def test_masks_over_another_set_than_the_sum_are_refused(desk: Desk) -> None:
    desk.open(*SITES)
    with pytest.raises(SecondAggregate):
        desk.reveal("site-1", ME)


@pytest.mark.parametrize(
    ("sites", "error"),
    [((ME,), TooFewContributors), ((), TooFewContributors)],
)
def test_a_set_below_the_quorum_is_refused(
    desk: Desk, sites: tuple[str, ...], error: type[FedsecureError]
) -> None:
    with pytest.raises(error, match="contributors, at least 2"):
        desk.open(*sites)
    assert desk.actions() == []


def test_a_stranger_in_the_set_is_refused(desk: Desk) -> None:
    rows = [*((s, desk.digest(s)) for s in SITES), ("site-9", bytes(32))]
    with pytest.raises(TooFewContributors, match=r"strangers: \['site-9'\]"):
        desk.sums.reveal(desk.run, RoundId(RUN, 1), rows, lambda: None, 1)


def test_a_set_that_counts_an_update_never_sent_is_refused(desk: Desk) -> None:
    rows = [(s, desk.digest(s)) for s in SITES]
    with pytest.raises(VerificationError, match="never sent"):
        desk.sums.reveal(desk.run, RoundId(RUN, 1), rows, lambda: None, 1)
    assert desk.actions() == []


def test_sums_are_opened_in_order(desk: Desk) -> None:
    with pytest.raises(ReleaseMissing, match="release of round 1 first"):
        desk.open(*SITES, number=2)
    desk.open(*SITES)
    desk.open(*SITES, number=2)
    assert desk.actions() == ["aggregate.opened"] * 2


def test_a_ledger_line_says_which_set_and_how_many(desk: Desk) -> None:
    desk.open("site-1", ME)
    (line,) = desk.ledger.records()[1:]
    assert json.loads(json.dumps(dict(line.detail)))["sites"] == 2
