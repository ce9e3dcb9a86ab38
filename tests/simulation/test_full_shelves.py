"""A site whose shelf fails while its ledger does not, and one whose daemon comes back.

A store that tells its room costs nothing: tests/unit/test_client_admission.py. One
that does not, behind a quota say, ends the daemon at each attempt, after it was paid
for; the ledger bounds how often.
"""

import pytest

from fedsecure.errors import StorageError
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.privacy.budget import ATTEMPTS
from tests.fakes.federation import Federation, Site
from tests.fakes.forgery import code_of
from tests.simulation.test_carried import Carried

ME = "site-3"
ROUNDS = 5
CEILING = 100.0


def federation_of(rounds: int = ROUNDS) -> Federation:
    federation = Federation(rounds=rounds, min_contributors=2, deadline=30.0)
    federation.sites[ME].max_epsilon = CEILING
    return federation


def full(site: Site, monkeypatch: pytest.MonkeyPatch, rounds: range) -> None:
    """Let no body of an answer to these rounds be written; the store never says why."""
    put = site.store.put

    def refuses(key: str, value: bytes) -> None:
        _, folder, number, *_ = (*key.split("/"), "0")
        if folder == "body" and int(number) in rounds:
            raise StorageError("could not write: No space left on device")
        put(key, value)

    monkeypatch.setattr(site.store, "put", refuses)


def paid(federation: Federation) -> list[int]:
    rounds = range(1, federation.terms.rounds + 1)
    return [federation.sites[ME].reservations(n) for n in rounds]


def rejected(federation: Federation) -> list[object]:
    notes = federation.notes.events
    return [f["code"] for e, f in notes if e == "rejected" and f["site"] == ME]


def test_a_shelf_that_never_says_it_is_full_costs_its_rounds_and_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = federation_of()
    full(federation.sites[ME], monkeypatch, range(1, ROUNDS + 1))
    federation.lead()
    assert paid(federation) == [ATTEMPTS, 1, 1, 1, 1]
    assert sum(paid(federation)) <= federation.sites[ME].deaths
    assert rejected(federation) == ["attempts"] * ROUNDS
    models = federation.models()
    assert models["site-1"] == models["site-2"] == models[ME] != b""


def test_a_round_that_is_given_up_is_given_up_for_the_next_leader_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    federation = federation_of()
    site = federation.sites[ME]
    full(site, monkeypatch, range(1, 2))
    letter = asked_by(federation, "agg-1")
    answers = [federation.deliver(ME, letter) for _ in range(ATTEMPTS + 1)]
    assert answers[:-1] == [None] * ATTEMPTS
    assert code_of(answers[-1] or b"") == "attempts"
    monkeypatch.undo()
    site.die()
    assert code_of(site.answer(asked_by(federation, "agg-2"))) == "attempts"
    assert paid(federation)[0] == ATTEMPTS
    assert "4 times in a row in this run, at most 4" in caplog.text


def asked_by(federation: Federation, name: str) -> bytes:
    """Return a new leader's letter of round 1."""
    leader = federation.leader(name)
    return Letters(leader, begin(leader, None)).request(ME, 1, train=True)()


def test_a_site_takes_part_again_once_its_disk_was_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = federation_of()
    full(federation.sites[ME], monkeypatch, range(1, 3))
    federation.lead()
    assert paid(federation) == [ATTEMPTS, 1, 1, 1, 1]
    assert rejected(federation) == ["attempts"] * 2


def test_after_an_answer_was_kept_three_deaths_in_a_round_are_survived_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = federation_of()
    site, left = federation.sites[ME], [3]
    full(site, monkeypatch, range(1, 2))
    put = site.store.put

    def thrice(key: str, value: bytes) -> None:
        if key.endswith("/body/3/0") and left[0]:
            left[0] -= 1
            raise StorageError("could not write: Input/output error")
        put(key, value)

    monkeypatch.setattr(site.store, "put", thrice)
    federation.lead()
    assert paid(federation) == [ATTEMPTS, 1, ATTEMPTS, 1, 1]
    assert rejected(federation) == ["attempts"]


# --- a daemon that comes back ---------------------------------------------------------


def test_a_release_that_comes_first_after_a_restart_is_not_waited_for() -> None:
    carried, died, waits = Carried(), list[int](), list[float]()
    federation = carried.federation
    deliver = federation.deliver

    def timed(site: str, data: bytes) -> bytes | None:
        waits.append(federation.sites[site].half().patience(data))
        return deliver(site, data)

    federation.deliver = timed  # type: ignore[method-assign]

    def turn() -> None:
        head = federation.state.heads.get("run-1")
        if head is not None and head.round == 4 and not died:
            died.append(1)
            federation.sites["site-2"].die()
        carried.turn()

    carried.lead(turn)
    assert died == [1]
    assert max(waits) == 0.0
    assert carried.codes("not_carried") == carried.codes("rejected") == []
