"""What must hold before a site is charged for a round: open, unanswered, with room."""

import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.metadata import Step
from fedsecure.shelf import _SPARE, Shelf
from tests.fakes.federation import MAX_BYTES, RUN, Federation, Site
from tests.fakes.forgery import altered, code_of
from tests.fakes.quantising import Quantising

ME = "site-3"


def first_letter(federation: Federation) -> bytes:
    leader = federation.leader("agg-1")
    return Letters(leader, begin(leader, None)).request(ME, 1, train=True)()


class Held:
    """A federation in which one site's letters of round 1 are held back."""

    def __init__(self, *, least: int, loses: str = "") -> None:
        self.federation = Federation(min_contributors=least, deadline=5.0)
        self.site: Site = self.federation.sites[ME]
        self.letters: list[bytes] = []
        deliver = self.federation.deliver

        def held(site: str, data: bytes) -> bytes | None:
            message = parse(data, MAX_BYTES)
            first = message.kind == Kind.REQUEST and message.scope.round.number == 1
            if first and site == ME:
                self.letters.append(data)
                return None
            return None if first and site == loses else deliver(site, data)

        self.federation.deliver = held  # type: ignore[method-assign]
        self.federation.lead()

    def code(self) -> str:
        """Return what the site says to the first letter it was not given then."""
        return code_of(self.site.answer(self.letters[0]))


# --- rounds that are over -------------------------------------------------------------


def test_old_letter_of_a_round_whose_release_was_opened_is_refused_unpaid() -> None:
    held = Held(least=2)
    assert sorted(held.site.opened()) == [1, 2]
    assert held.code() == "round_over"
    assert held.site.reservations(1) == held.site.trainer.trained[1] == 0


def test_old_letter_of_a_skipped_round_below_the_newest_release_is_refused() -> None:
    held = Held(least=2, loses="site-2")
    steps = {(e.round, e.step) for e in held.federation.journal()}
    assert (1, Step.SKIP) in steps
    assert sorted(held.site.opened()) == [2]
    assert held.code() == "round_over"
    assert held.site.reservations(1) == held.site.trainer.trained[1] == 0


def test_a_round_that_is_over_is_over_after_a_restart() -> None:
    held = Held(least=2)
    held.site.die()
    assert held.code() == "round_over"


def test_an_answer_kept_is_given_again_when_its_round_is_over() -> None:
    federation = Federation()
    site, letter = federation.sites[ME], first_letter(federation)
    first = site.answer(letter)
    federation.lead()
    again = altered(federation, letter, header={"term": federation.state.term})
    assert sorted(site.opened()) == [1, 2]
    assert site.answer(again) == first


def test_a_leader_asks_a_site_for_a_round_that_is_over_only_once() -> None:
    federation = Federation(min_contributors=2)
    federation.sites[ME].half()._sums._opened[RUN, 1] = b"x" * 32
    federation.lead()
    codes = [
        (fields["site"], fields["code"])
        for event, fields in federation.notes.events
        if event == "rejected"
    ]
    assert codes.count((ME, "round_over")) == 1


# --- room -----------------------------------------------------------------------------


def test_a_shelf_without_room_for_the_answer_is_said_before_it_is_paid() -> None:
    federation = Federation()
    site, letter = federation.sites[ME], first_letter(federation)
    site.store.left = _SPARE
    assert code_of(site.answer(letter)) == "no_room"
    assert site.reservations(1) == site.trainer.trained[1] == site.deaths == 0


def test_the_same_letter_is_answered_once_there_is_room() -> None:
    federation = Federation()
    site, letter = federation.sites[ME], first_letter(federation)
    site.store.left = _SPARE
    site.answer(letter)
    site.store.left = 2 * _SPARE
    assert parse(site.answer(letter), MAX_BYTES).kind == Kind.UPDATE


def test_what_a_dead_attempt_left_is_room_for_the_next() -> None:
    federation = Federation()
    site, letter = federation.sites[ME], first_letter(federation)
    site.store.put(f"{RUN}/body/1/0", bytes(1 << 20))
    site.store.left = _SPARE
    assert parse(site.answer(letter), MAX_BYTES).kind == Kind.UPDATE
    assert len(site.store.objects[f"{RUN}/body/1/0"]) < 1 << 20


@pytest.mark.parametrize(
    "federation",
    [
        Federation(rounds=1),
        Federation(rounds=1, scheme="bfv"),
        Federation(rounds=1, masked=True),
        Quantising(rounds=1, profile="8", error_feedback=True),
    ],
    ids=["plain", "bfv", "masked", "residual"],
)
def test_a_round_puts_no_more_on_the_shelf_than_was_asked_for(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = federation.sites[ME].store, []
    written: dict[str, int] = {}
    put = store.put

    def count(key: str, value: bytes) -> None:
        if any(word in key for word in ("/body/", "/residual/", "/model/1")):
            written[key] = len(value)
        put(key, value)

    def require(self: Shelf, number: int, need: int) -> None:
        if self.store is federation.sites[ME].half()._runs.get(RUN).shelf.store:
            asked.append((number, need))

    monkeypatch.setattr(store, "put", count)
    monkeypatch.setattr(Shelf, "require_room", require)
    federation.lead()
    ((number, need),) = asked
    assert number == 1
    assert 0 < sum(written.values()) <= need


def test_a_full_shelf_costs_no_budget_and_the_site_comes_back_with_room() -> None:
    federation = Federation(rounds=3, min_contributors=2, deadline=30.0)
    site = federation.sites[ME]
    site.store.left = _SPARE
    deliver = federation.deliver

    def freed(site: str, data: bytes) -> bytes | None:
        if parse(data, MAX_BYTES).scope.round.number == 3:
            federation.sites[ME].store.left = 1 << 30
        return deliver(site, data)

    federation.deliver = freed  # type: ignore[method-assign]
    federation.lead()
    assert [site.reservations(n) for n in (1, 2, 3)] == [0, 0, 1]
    refused = [f for e, f in federation.notes.events if e == "rejected"]
    assert [f["code"] for f in refused] == ["no_room"] * 2
