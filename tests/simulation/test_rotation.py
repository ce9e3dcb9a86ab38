"""A run gets a new key between two rounds, whoever dies or was away meanwhile."""

import json
from collections.abc import Mapping

import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.errors import KeyEnded
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.metadata import Step
from fedsecure.trainer import JSON
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.forgery import altered, code_of, release_over
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations

ME = "site-2"


def rotating(before: int = 2, *, masked: bool = False, **more: int) -> Federation:
    federation = Federation(private=False, masked=masked, **more)  # type: ignore[arg-type]
    federation.rotation.rounds = {before}
    return federation


def key_ids(federation: Federation) -> list[str]:
    """Return the keys sites opened, in order, if they all opened the same."""
    opened = {
        name: [r.object for r in site.records() if r.action == "key.opened"]
        for name, site in federation.sites.items()
    }
    first, *others = opened.values()
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize("masked", [False, True])
def test_the_model_is_the_same_as_without_a_rotation(*, masked: bool) -> None:
    federation = rotating(masked=masked)
    federation.lead()
    assert len(set(key_ids(federation))) == 2
    assert violations(federation) == []


def test_each_round_is_under_its_own_key() -> None:
    seen: dict[int, set[bytes]] = {}
    federation = rotating()

    def watch(_: str, data: bytes) -> bytes:
        envelope = parse(data, MAX_BYTES)
        if envelope.kind == Kind.UPDATE:
            number = envelope.scope.round.number
            seen.setdefault(number, set()).add(envelope.scope.key_id)
        return data

    federation.tamper = watch
    federation.lead()
    assert {number: len(ids) for number, ids in seen.items()} == {1: 1, 2: 1}
    assert seen[1].isdisjoint(seen[2])


def test_no_key_is_left_after_the_run() -> None:
    federation = rotating()
    federation.lead()
    for site in federation.sites.values():
        assert [key for key in site.store.objects if "/key/" in key] == []
        ended = [r.detail["reason"] for r in site.records() if r.action == "key.ended"]
        assert ended == ["rotated", "the run is over"]


def _steps_around_the_rotation() -> range:
    """Return the steps from just before the new key to the round's first update.

    The others are those of a run that does not rotate: test_crashes has them.
    """
    federation, fuse = rotating(), Fuse("agg-1")
    federation.lead("agg-1", fuse)
    made = [i for i, name in enumerate(fuse.names) if "begin/" in name]
    return range(made[-1] - 4, made[-1] + 9)


@pytest.mark.parametrize("step", _steps_around_the_rotation())
def test_a_leader_dies_after_a_step_of_a_run_that_rotates(step: int) -> None:
    federation = rotating()
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", step))
    federation.lead("agg-2")
    assert violations(federation) == []


def test_a_site_that_was_away_gets_both_keys_later() -> None:
    federation = rotating(min_contributors=2, rounds=3)

    def lose(site: str, data: bytes) -> bytes | None:
        return (
            None
            if site == ME and parse(data, MAX_BYTES).scope.round.number < 3
            else data
        )

    federation.tamper = lose
    federation.lead()
    assert len(set(key_ids(federation))) == 2
    assert len(set(federation.models().values())) == 1


def test_an_update_under_the_old_key_is_refused_and_the_round_goes_on() -> None:
    federation, old = rotating(min_contributors=2), dict[str, bytes]()

    def replay(site: str, data: bytes) -> bytes:
        envelope = parse(data, MAX_BYTES)
        if envelope.kind == Kind.UPDATE and site == ME:
            old.setdefault("key", envelope.scope.key_id)
            if envelope.scope.round.number == 2:
                return altered(federation, data, scope={"key_id": old["key"]})
        return data

    federation.tamper = replay
    federation.lead()
    updates = {(e.round, e.site) for e in federation.journal() if e.step == Step.UPDATE}
    assert (1, ME) in updates
    assert (2, ME) not in updates
    assert any(
        event == "rejected" and facts["site"] == ME
        for event, facts in federation.notes.events
    )


def test_an_old_statement_does_not_bring_an_old_key_back() -> None:
    federation = rotating(rounds=3)
    federation.lead()
    leader = federation.leader("agg-2")
    letters = Letters(leader, begin(leader, None))
    data = letters.request(ME, 4, train=False)()
    first = begin(leader, None).keys[0]
    rows: list[JSON] = [{"first_round": 0, "custodian": first.custodian}]
    header: Mapping[str, JSON] = {"keys": rows}
    old = altered(
        federation,
        data,
        scope={"key_id": first.key_id},
        header={**header, "parts": []},
        body=b"",
    )
    assert code_of(federation.sites[ME].answer(old)) in {"verification", "key_missing"}


def test_a_revoked_site_gets_no_new_key_and_the_others_go_on() -> None:
    federation = Federation(sites=4, private=False, rounds=3, min_contributors=3)

    def after_first(event: str, fields: Mapping[str, JSON]) -> None:
        federation.notes.events.append((event, fields))

    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", _after_first_round(federation)))
    federation.revoke("site-4")
    federation.lead("agg-2")
    rotated = [facts for event, facts in federation.notes.events if event == "rotated"]
    assert len(rotated) == 1
    opened = [
        r for r in federation.sites["site-4"].records() if r.action == "key.opened"
    ]
    assert len(opened) == 1
    models = federation.models()
    assert len({models[f"site-{i}"] for i in (1, 2, 3)}) == 1


def _after_first_round(federation: Federation) -> int:
    other, fuse = (
        Federation(sites=4, private=False, rounds=3, min_contributors=3),
        Fuse("agg-1"),
    )
    assert other.terms == federation.terms
    other.lead("agg-1", fuse)
    return next(
        i for i, name in enumerate(fuse.names, 1) if "advance" in name or "head" in name
    )


def test_a_failed_tag_ends_the_key_at_the_site() -> None:
    federation = Federation(private=False, min_contributors=2)
    leader = federation.leader("agg-1")
    letters = Letters(leader, begin(leader, None))
    for name, site in federation.sites.items():
        site.answer(letters.request(name, 1, train=True)())
    whole = release_over(federation, ["site-1", "site-3"], 1)
    part = release_over(federation, ["site-1", ME], 1)

    rows = json.loads(whole.header)["participants"]
    data = altered(federation, part.to_bytes(), header={"participants": rows})
    half = federation.sites[ME].half()
    for _ in range(2):
        with pytest.raises(Exception, match=r"not of exactly these|ended"):
            half.recover(parse(data, MAX_BYTES))
    with pytest.raises(KeyEnded, match="a tag failed"):
        half._runs.get(RUN).keys.of(1)
    ended = [r for r in federation.sites[ME].records() if r.action == "key.ended"]
    assert [r.detail["reason"] for r in ended] == ["a tag failed"]
    assert (
        code_of(federation.sites[ME].answer(letters.request(ME, 2, train=True)())) != ""
    )
