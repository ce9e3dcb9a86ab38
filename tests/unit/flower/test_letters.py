"""What a site is sent: everything at first, and then only what it does not have."""

import json

import pytest

from fedsecure.envelope import parse
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.trainer import JSON
from tests.fakes.federation import MAX_BYTES, Federation

FIRST = ["statement", "wrap", "layout", "initial"]


@pytest.fixture
def letters() -> Letters:
    leader = Federation().leader("agg-1")
    return Letters(leader, begin(leader, None))


def header(letters: Letters, site: str = "site-2", number: int = 1) -> dict[str, JSON]:
    data = letters.request(site, number, train=True)()
    found: dict[str, JSON] = json.loads(parse(data, MAX_BYTES).header)
    return found


def parts(letters: Letters, site: str = "site-2") -> list[str]:
    rows = header(letters, site)["parts"]
    assert isinstance(rows, list)
    return [str(row[0]) for row in rows if isinstance(row, list)]


def test_first_letter_carries_key_and_first_model(letters: Letters) -> None:
    assert parts(letters) == FIRST


def test_site_that_has_them_is_not_sent_them_again(letters: Letters) -> None:
    letters.holdings.has("site-2", 0, 1)
    assert parts(letters) == []
    assert parts(letters, "site-3") == FIRST


def test_forgotten_site_is_sent_everything_again(letters: Letters) -> None:
    letters.holdings.has("site-2", 0, 1)
    letters.holdings.refused("site-2", "key_missing")
    assert parts(letters) == FIRST


def test_wrap_is_the_site_s_own(letters: Letters) -> None:
    bodies = {
        parse(letters.request(s, 1, train=True)(), MAX_BYTES).body
        for s in ("site-1", "site-2")
    }
    assert len(bodies) == 2


def test_letter_is_signed_for_run_key_layout_and_plan(letters: Letters) -> None:
    scope = parse(letters.request("site-2", 3, train=True)(), MAX_BYTES).scope
    assert (scope.round.number, scope.site) == (3, "site-2")
    assert all((scope.key_id, scope.layout, scope.plan))


def test_first_round_starts_from_the_first_model(letters: Letters) -> None:
    fields = header(letters)
    assert fields["after"] == 0
    assert fields["input"] == letters.last_release()[1].hex()


def test_letter_carries_term_and_plan(letters: Letters) -> None:
    fields = header(letters)
    assert fields["term"] == 1
    assert isinstance(fields["plan"], dict)


def finished() -> Letters:
    federation = Federation(rounds=3)
    federation.lead()
    leader = federation.leader("agg-2")
    return Letters(leader, begin(leader, None))


def test_new_leader_sends_what_journalled_updates_do_not_show() -> None:
    """An update of round 3 was made by who had opened round 2, and held the key."""
    assert parts(finished()) == ["release"]


def test_site_that_lost_everything_is_sent_everything() -> None:
    letters = finished()
    letters.holdings.refused("site-2", "key_missing")
    assert parts(letters) == [*FIRST, *["release"] * 3]


def left_to_a_standby(letters: Letters, opened: int) -> None:
    """Have site-2 say twice that a standby brought it releases in time."""
    letters.holdings.has("site-2", opened, opened + 1)
    letters.holdings.brought.told("site-2", opened - 1, opened - 1)
    letters.holdings.brought.told("site-2", opened, opened)


def test_release_that_a_standby_brings_is_named_with_a_time_to_wait() -> None:
    letters = finished()
    left_to_a_standby(letters, 2)
    fields = header(letters, number=4)
    assert (fields["parts"], fields["after"]) == ([], 3)
    assert fields["elsewhere"] == 10


def test_time_to_wait_leaves_most_of_the_round() -> None:
    federation = Federation(rounds=3, deadline=9.0)
    federation.lead()
    leader = federation.leader("agg-2")
    letters = Letters(leader, begin(leader, None))
    left_to_a_standby(letters, 2)
    assert header(letters, number=4)["elsewhere"] == 3


def test_site_that_missed_what_a_standby_brings_is_sent_that_alone() -> None:
    letters = finished()
    left_to_a_standby(letters, 2)
    letters.holdings.refused("site-2", "release_missing")
    assert "elsewhere" not in header(letters, number=4)
    assert parts(letters) == ["release"]


def test_site_two_releases_behind_is_sent_both() -> None:
    letters = finished()
    left_to_a_standby(letters, 1)
    assert parts(letters) == ["release"] * 2


def test_last_letter_leaves_nothing_to_standbys() -> None:
    letters = finished()
    left_to_a_standby(letters, 2)
    data = letters.request("site-2", 4, train=False)()
    assert b"elsewhere" not in parse(data, MAX_BYTES).header
    assert b'"release"' in parse(data, MAX_BYTES).header


def test_letter_is_made_when_it_is_sent() -> None:
    letters = finished()
    later = letters.request("site-2", 4, train=False)
    letters.holdings.has("site-2", 3, 4)
    assert b'"parts":[]' in parse(later(), MAX_BYTES).header
