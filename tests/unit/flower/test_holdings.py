"""What a site has shown to hold: by journalled updates, until it says it lacks it."""

import pytest

from fedsecure.flower.beginning import begin
from fedsecure.flower.holdings import Holdings
from tests.fakes.federation import Federation

ME = "site-2"


def holdings(rounds: int) -> Holdings:
    """Return what a new leader knows after so many rounds."""
    federation = Federation(rounds=rounds)
    if rounds:
        federation.lead()
    leader = federation.leader("agg-2")
    return Holdings(leader, begin(leader, None))


@pytest.fixture
def known() -> Holdings:
    return holdings(3)


def test_before_the_first_round_nobody_holds_anything() -> None:
    federation = Federation()
    leader = federation.leader("agg-1")
    fresh = Holdings(leader, begin(leader, None))
    assert (fresh.keyed(ME), fresh.opened(ME)) == (-1, 0)


def test_journalled_updates_show_key_and_releases(known: Holdings) -> None:
    assert known.keyed(ME) >= 0
    assert known.opened(ME) == 2


def test_site_that_took_no_part_has_shown_nothing() -> None:
    federation = Federation(rounds=2, min_contributors=2)
    federation.sites[ME].gate.refuses = "not this one"
    federation.lead()
    leader = federation.leader("agg-2")
    fresh = Holdings(leader, begin(leader, None))
    assert (fresh.keyed(ME), fresh.opened(ME)) == (-1, 0)
    assert fresh.opened("site-1") == 1


@pytest.mark.parametrize("code", ["key_missing", "release_missing", "verification"])
def test_site_that_lacks_something_is_known_for_nothing(
    known: Holdings, code: str
) -> None:
    assert not known.refused(ME, code)
    assert (known.keyed(ME), known.opened(ME)) == (-1, 0)
    assert known.opened("site-1") == 2


@pytest.mark.parametrize("code", ["failed", "budget", "policy", "late"])
def test_site_that_could_not_train_holds_what_it_held(
    known: Holdings, code: str
) -> None:
    assert not known.refused(ME, code)
    assert known.opened(ME) == 2


def test_site_that_was_sent_a_part_is_further_once_it_lacks_the_rest(
    known: Holdings,
) -> None:
    known.refused(ME, "key_missing")
    known.sent_part(ME, 1, 4)
    assert known.refused(ME, "release_missing")
    assert (known.keyed(ME) >= 0, known.opened(ME)) == (True, 1)


def test_site_that_lacks_what_it_was_sent_in_part_is_not_further(
    known: Holdings,
) -> None:
    known.sent_part(ME, 1, 4)
    assert not known.refused(ME, "verification")
    assert known.opened(ME) == 0
