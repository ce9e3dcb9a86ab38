"""A look at the stores with a roster that is too old, foreign, or new enough."""

from dataclasses import replace

import pytest

from fedsecure.access.roster import Roster
from fedsecure.checkpoint.enrolment import doubts, require_newest
from fedsecure.checkpoint.manifest import read_manifest
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.errors import ConfigurationError
from tests.fakes.checkpoints import finished, inventory, keys
from tests.fakes.federation import Federation

FOREIGN = "e" * 64


@pytest.fixture
def federation() -> Federation:
    """Return a federation whose two rounds were released under roster 3."""
    made = Federation(rounds=2, private=False)
    made.roster = replace(made.roster, version=3)
    made.lead()
    return made


def ours(federation: Federation, version: int) -> Rosters:
    return Rosters(replace(federation.roster, version=version))


def rewritten(made: Federation, signer: str, **changed: object) -> None:
    """Put another last manifest onto all stores, signed as one has the key to."""
    key = keys(made, "manifest/")[-1]
    pens = {name: made.signing(name) for name in made.aggregators}
    known = {name: pens[name].public for name in pens}
    for store in made.stores:
        manifest = read_manifest(store.objects[key], known)
        other = replace(manifest, **changed)  # type: ignore[arg-type]
        store.objects[key] = other.signed(made.signing(signer))


@pytest.mark.parametrize("version", [3, 4])
def test_a_roster_as_new_as_all_checkpoints_looks(
    federation: Federation, version: int
) -> None:
    require_newest(ours(federation, version), inventory(federation))
    other = replace(federation.roster, version=4)
    assert list(doubts(Rosters(other), inventory(federation))) == []


def test_an_older_roster_does_not(federation: Federation) -> None:
    with pytest.raises(ConfigurationError, match="round 1 was released under roster 3"):
        require_newest(ours(federation, 2), inventory(federation))


def test_stores_without_a_manifest_ask_for_no_roster() -> None:
    require_newest(ours(Federation(), 1), inventory(Federation()))


def test_a_manifest_that_nobody_committed_is_enough(federation: Federation) -> None:
    rewritten(federation, "agg-2", writer="agg-2", roster=4)
    with pytest.raises(ConfigurationError, match="round 2 was released under roster 4"):
        require_newest(ours(federation, 3), inventory(federation))


def test_a_manifest_by_who_joined_later_is_enough(federation: Federation) -> None:
    rewritten(federation, "agg-3", writer="agg-3", roster=4)
    with pytest.raises(
        ConfigurationError, match=r"manifest/run-1/0+2: .*'agg-3' under roster 4, this"
    ):
        require_newest(ours(federation, 3), inventory(federation))


def test_one_good_copy_is_believed_against_what_others_say(
    federation: Federation,
) -> None:
    good = federation.stores[2].objects[keys(federation, "manifest/")[-1]]
    rewritten(federation, "agg-3", writer="agg-3", roster=4)
    federation.stores[2].objects[keys(federation, "manifest/")[-1]] = good
    require_newest(ours(federation, 3), inventory(federation))


def test_a_store_that_says_it_is_anothers_is_named(federation: Federation) -> None:
    mark = f"fedsecure federation 1 {FOREIGN}\n".encode()
    federation.stores[1].objects["federation"] = mark
    with pytest.raises(
        ConfigurationError, match=f"store store-1: .* of federation {FOREIGN[:16]}"
    ):
        require_newest(ours(federation, 3), inventory(federation))


def test_a_store_whose_mark_is_too_long_to_read_says_nothing(
    federation: Federation,
) -> None:
    federation.stores[1].objects["federation"] = bytes(5000)
    require_newest(ours(federation, 3), inventory(federation))


def test_manifests_of_another_federation_are_no_lost_ones(
    federation: Federation,
) -> None:
    rewritten(federation, "site-1", federation=FOREIGN)
    with pytest.raises(ConfigurationError, match="take a kit of the other one"):
        require_newest(ours(federation, 3), inventory(federation))


def test_a_release_under_another_roster_of_one_number_is_doubted() -> None:
    made = finished()
    other: Roster = replace(made.roster, expires="2031-01-01T00:00:00Z")
    found = list(doubts(Rosters(other), inventory(made)))
    assert [key for key, _ in found] == keys(made, "manifest/")
    assert "two rosters were made under one number" in found[0][1]
