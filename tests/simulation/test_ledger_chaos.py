"""Sites, leaders and key custodians die at random; no ledger forgets a release.

50 kills in `make test` (40 here, 10 real ones in tests/integration/test_budget_kills),
1,000 in `make ledger-chaos` (950 here, 50 there). Both counts are printed.
"""

import sys

import pytest

from fedsecure import shelf
from fedsecure.accounting import PrivacyEvent
from fedsecure.privacy.account import Reservation
from fedsecure.privacy.budget import Budget
from fedsecure.update import RoundId
from tests.fakes.chaos import VICTIMS, Toll, wreak

KILLS, MANY_KILLS = 40, 950
KILLS_A_RUN = 6


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "PIECE_BYTES", 12_000)


def toll_of(kills: int, seed: int = 0) -> Toll:
    toll = Toll()
    while toll.total < kills:
        wreak(toll, seed, KILLS_A_RUN)
        seed += 1
    return toll


def kept(toll: Toll, capsys: pytest.CaptureFixture[str]) -> bool:
    """Print both counts; return whether what is promised was kept."""
    with capsys.disabled():
        sys.stdout.write(
            f"\n{toll.total} kills {dict(toll.kills)}: {toll.released} releases, "
            f"{toll.undercounts} undercounts, {toll.overcharges} overcharges\n"
        )
    return toll.undercounts == 0 and toll.worst <= 0


def test_forty_kills_hide_no_release_and_overcharge_once_each_at_most(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert kept(toll_of(KILLS), capsys)


@pytest.mark.chaos
def test_many_kills_hide_no_release_and_overcharge_once_each_at_most(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toll = toll_of(MANY_KILLS, seed=10_000)
    assert kept(toll, capsys)
    assert min(toll.kills[victim] for victim in VICTIMS) >= MANY_KILLS // 10
    # Kills that fall between charge and answer are among them: else nothing was shown.
    assert toll.overcharges > 0


def test_a_charge_that_is_not_written_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def free(
        budget: Budget,
        round_id: RoundId,
        plan_digest: bytes,
        event: PrivacyEvent,
        unit: str = "example",
    ) -> Reservation:
        _ = budget, unit
        return Reservation(0, round_id, plan_digest, event)

    monkeypatch.setattr(Budget, "reserve", free)
    monkeypatch.setattr(Budget, "commit", lambda *_: None)
    toll = Toll()
    wreak(toll, 0, 1)
    assert not kept(toll, capsys)


def test_a_charge_too_many_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reserve = Budget.reserve

    def twice(
        budget: Budget,
        round_id: RoundId,
        plan_digest: bytes,
        event: PrivacyEvent,
        unit: str = "example",
    ) -> Reservation:
        budget.void(reserve(budget, round_id, plan_digest, event, unit), "a mutation")
        return reserve(budget, round_id, plan_digest, event, unit)

    monkeypatch.setattr(Budget, "reserve", twice)
    toll = Toll()
    wreak(toll, 0, 1)
    assert not kept(toll, capsys)
