"""Standbys that carry releases: the leader sends less, and nobody depends on it."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.flower.carrier import Carrier
from fedsecure.metadata import Step
from fedsecure.release import ELSEWHERE
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.fuses import Died

ROUNDS = 6


class Carried:
    """A run that agg-1 leads and agg-2 stands by in, and what went to the sites."""

    def __init__(self, *, least: int = 0, deadline: float = 60.0) -> None:
        self.federation = Federation(rounds=ROUNDS, private=False, deadline=deadline)
        self.bodies = Counter[str]()
        self.named = Counter[str]()
        self.brought = Counter[str]()
        deliver = self.federation.deliver

        def seen(site: str, data: bytes) -> bytes | None:
            self._count(site, data)
            return deliver(site, data)

        self.federation.deliver = seen  # type: ignore[method-assign]
        standby = self.federation.leader("agg-2")
        aggregators = self.federation.aggregators
        self.carrier = Carrier(self.federation.terms, standby.tools, aggregators, least)

    def lead(self, turn: Callable[[], None]) -> None:
        self.federation.reorder = lambda _: turn()
        self.federation.lead("agg-1")

    def turn(self) -> None:
        # The hook is not for the carrier's own letters: it would call itself.
        kept, self.federation.reorder = self.federation.reorder, lambda _: None
        self.carrier.turn("agg-1")
        self.federation.reorder = kept

    def codes(self, event: str) -> list[object]:
        return [f["code"] for e, f in self.federation.notes.events if e == event]

    def _count(self, site: str, data: bytes) -> None:
        letter = parse(data, MAX_BYTES)
        if letter.kind == Kind.RELEASE:
            self.brought[site] += 1
        elif letter.kind == Kind.REQUEST:
            header = json.loads(letter.header)
            self.bodies[site] += sum(name == "release" for name, _ in header["parts"])
            self.named[site] += ELSEWHERE in header


def models(carried: Carried) -> set[bytes]:
    return set(carried.federation.models().values())


def plain() -> set[bytes]:
    federation = Federation(rounds=ROUNDS, private=False)
    federation.lead()
    return set(federation.models().values())


def test_leader_leaves_releases_to_a_standby_once_sites_say_it_brings_them() -> None:
    carried = Carried()
    carried.lead(carried.turn)
    sites = carried.federation.terms.sites
    # The first is in a letter, for no site has said anything by then; so is the last.
    assert [carried.bodies[s] for s in sites] == [2, 2, 2]
    assert [carried.named[s] for s in sites] == [ROUNDS - 2] * 3
    assert [carried.brought[s] for s in sites] == [ROUNDS] * 3
    assert carried.codes("carried") == [""] * ROUNDS * 3
    assert carried.codes("rejected") == []


def test_model_is_the_same_whoever_brings_the_releases() -> None:
    carried = Carried()
    carried.lead(carried.turn)
    assert models(carried) == plain()


def test_standby_that_ends_is_missed_once_a_site_and_nothing_is_lost() -> None:
    carried, turns = Carried(), Counter[str]()

    def until_round_three() -> None:
        turns["all"] += 1
        released = carried.federation.state.heads.get("run-1")
        if released is None or released.round < 3:
            carried.turn()
        else:
            carried.carrier.turn("")

    carried.lead(until_round_three)
    assert carried.codes("rejected") == ["release_missing"] * 3
    assert models(carried) == plain()
    # From then on the leader sends all of it again.
    assert min(carried.bodies.values()) > ROUNDS - 3


def test_standby_that_comes_back_is_relied_on_once_it_is_in_time() -> None:
    carried = Carried()

    def with_a_gap() -> None:
        released = carried.federation.state.heads.get("run-1")
        if released is None or released.round != 2:
            carried.turn()

    carried.lead(with_a_gap)
    assert carried.codes("rejected") == ["release_missing"] * 3
    assert min(carried.named.values()) > 2
    assert models(carried) == plain()


def test_releases_below_the_bound_are_not_carried() -> None:
    carried = Carried(least=1 << 40)
    carried.lead(carried.turn)
    assert carried.brought.total() == 0
    assert min(carried.bodies.values()) == ROUNDS


def test_nothing_is_carried_while_nobody_leads() -> None:
    carried = Carried()
    carried.federation.lead("agg-1")
    carried.carrier.turn("")
    assert carried.brought.total() == 0


def test_standby_whose_engine_is_silent_says_so_and_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    carried = Carried()
    carried.federation.lead("agg-1")
    carried.federation.state.reachable = False
    carried.carrier.turn("agg-1")
    assert "carries nothing now" in caplog.text
    carried.federation.state.reachable = True
    carried.carrier.turn("agg-1")
    assert carried.brought.total() == 3


def test_new_leader_relies_on_nobody_for_what_old_updates_say() -> None:
    """Who carried leads now: sites that wait for a standby would wait in vain."""
    carried, lost = Carried(), set[str]()

    def until_all_trained(site: str, data: bytes) -> bytes | None:
        message = parse(data, MAX_BYTES)
        if message.kind == Kind.UPDATE and message.scope.round.number == 4:
            lost.add(site)
            if len(lost) == 3:
                raise Died("agg-1")
            return None
        return data

    carried.federation.tamper = until_all_trained
    with pytest.raises(Died):
        carried.lead(carried.turn)
    before = carried.named.total()
    carried.federation.tamper = lambda _, data: data
    carried.federation.reorder = lambda _: None
    carried.federation.lead("agg-2")
    assert carried.named.total() == before
    assert models(carried) == plain()


class Patient(Carried):
    """Sites wait as node daemons do, and the standby ends once so many are released."""

    def __init__(self, deadline: float, ends_after: int) -> None:
        super().__init__(deadline=deadline)
        self._ends_after = ends_after
        deliver = self.federation.deliver

        def waiting(site: str, data: bytes) -> bytes | None:
            self.federation.clock.sleep(
                self.federation.sites[site].half().patience(data)
            )
            return deliver(site, data)

        self.federation.deliver = waiting  # type: ignore[method-assign]

    def turn(self) -> None:
        released = self.federation.state.heads.get("run-1")
        if released is None or released.round < self._ends_after:
            super().turn()
        else:
            self.carrier.turn("")


@pytest.mark.parametrize("ends_after", [3, ROUNDS])
@pytest.mark.parametrize("deadline", [4.0, 10.0, 60.0])
def test_standby_that_ends_costs_no_round_whatever_the_deadline(
    deadline: float, ends_after: int
) -> None:
    carried = Patient(deadline, ends_after)
    carried.lead(carried.turn)
    assert carried.codes("skipped") == []
    assert models(carried) == plain()


def test_manifest_that_no_store_has_whole_does_not_end_a_standby(
    caplog: pytest.LogCaptureFixture,
) -> None:
    carried = Carried()
    carried.federation.lead("agg-1")
    for store in carried.federation.stores:
        for key in [k for k in store.objects if k.startswith("manifest")]:
            store.flip(key, 5)
    carried.carrier.turn("agg-1")
    assert "carries nothing now" in caplog.text


def test_site_far_behind_is_sent_its_releases_in_letters_that_fit() -> None:
    federation = Federation(rounds=12, min_contributors=2, private=False)
    full, away = federation.terms, federation.sites["site-2"]
    away.gate.refuses = "away"
    federation.terms = replace(full, rounds=10)
    federation.lead("agg-1")
    away.gate.refuses = ""
    most = (1 << 20) + 120_000  # three releases, or one beside key and first model
    federation.terms = replace(full, max_bytes=most)
    deliver, held = federation.deliver, list[int]()

    def seen(site: str, data: bytes) -> bytes | None:
        letter = parse(data, MAX_BYTES)
        if site == "site-2" and letter.kind == Kind.REQUEST:
            listing = json.loads(letter.header)["parts"]
            held.append(sum(name == "release" for name, _ in listing))
            assert len(data) <= most
        return deliver(site, data)

    federation.deliver = seen  # type: ignore[method-assign]
    federation.lead("agg-2")
    assert held == [1, 3, 3, 3, 1, 1]
    assert federation.models()["site-2"] == federation.models()["site-1"]
    by_round = [e for e in federation.journal() if e.step == Step.UPDATE]
    assert {e.round for e in by_round if e.site == "site-2"} == {11, 12}


def test_site_that_missed_everything_is_sent_key_and_first_model_alone_first() -> None:
    federation = Federation(rounds=4, min_contributors=2, private=False)
    full, away = federation.terms, federation.sites["site-2"]
    away.gate.refuses = "away"
    federation.terms = replace(full, rounds=2)
    federation.lead("agg-1")
    away.gate.refuses = ""
    most = (1 << 20) + 60_000  # one release, and none beside key and first model
    federation.terms = replace(full, max_bytes=most)
    sizes, deliver = list[int](), federation.deliver

    def seen(site: str, data: bytes) -> bytes | None:
        sizes.append(len(data))
        return deliver(site, data)

    federation.deliver = seen  # type: ignore[method-assign]
    federation.lead("agg-2")
    assert max(sizes) <= most
    rows = [e for e in federation.journal() if e.step == Step.UPDATE]
    assert {e.round for e in rows if e.site == "site-2"} == {3, 4}
