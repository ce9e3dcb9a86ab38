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
    letters.has("site-2", 0, 1)
    assert parts(letters) == []
    assert parts(letters, "site-3") == FIRST


def test_forgotten_site_is_sent_everything_again(letters: Letters) -> None:
    letters.has("site-2", 0, 1)
    letters.forget("site-2")
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


def test_new_leader_sends_all_releases() -> None:
    assert parts(finished()) == [*FIRST, *["release"] * 3]


def test_site_that_opened_some_is_sent_the_others() -> None:
    letters = finished()
    letters.has("site-2", 2, 3)
    assert parts(letters) == ["release"]


def last_letter(letters: Letters) -> dict[str, JSON]:
    return header(letters, number=4)


def test_release_that_a_standby_brings_is_named_with_its_size() -> None:
    letters = finished()
    letters.has("site-2", 2, 3, brought=2)
    fields = last_letter(letters)
    assert (fields["parts"], fields["after"]) == ([], 3)
    head = letters._leader.heads(3)[0]
    assert fields["elsewhere"] == letters._leader.tools.vault.manifest(head).size > 0


def test_site_that_missed_what_a_standby_brings_is_sent_it() -> None:
    letters = finished()
    letters.has("site-2", 2, 3, brought=2)
    letters.forget("site-2")
    fields = last_letter(letters)
    assert "elsewhere" not in fields
    assert parts(letters) == [*FIRST, *["release"] * 3]


def test_site_two_releases_behind_is_sent_both() -> None:
    letters = finished()
    letters.has("site-2", 1, 2, brought=1)
    assert parts(letters) == ["release"] * 2


def test_letter_is_made_when_it_is_sent() -> None:
    letters = finished()
    later = letters.request("site-2", 4, train=False)
    letters.has("site-2", 3, 4)
    assert b'"parts":[]' in parse(later(), MAX_BYTES).header
