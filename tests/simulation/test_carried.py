"""Standbys that carry releases: the leader sends less, and nobody depends on it."""

import json
from collections import Counter
from collections.abc import Callable

import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.flower.carrier import Carrier
from fedsecure.release import ELSEWHERE
from tests.fakes.federation import MAX_BYTES, Federation

ROUNDS = 6


class Carried:
    """A run that agg-1 leads and agg-2 stands by in, and what went to the sites."""

    def __init__(self, *, least: int = 0, sites: int = 3) -> None:
        self.federation = Federation(sites=sites, rounds=ROUNDS, private=False)
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
    # The first is in the letter: no site has said anything by then.
    assert [carried.bodies[s] for s in sites] == [1, 1, 1]
    assert [carried.named[s] for s in sites] == [ROUNDS - 1] * 3
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
            carried.carrier.rest()

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
