"""Members are revoked while a run goes on: it goes on under the newer roster only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fedsecure.checkpoint.manifest import Manifest
from fedsecure.checkpoint.vault import Vault
from fedsecure.errors import ConfigurationError
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import heads

ROUNDS = 3


def federation(kind: type[Federation] = Federation) -> Federation:
    """Return four sites of which three are enough."""
    return kind(sites=4, private=False, rounds=ROUNDS, min_contributors=3)


class AfterReleases(Fuse):
    """Its owner dies as soon as it has released so many rounds."""

    def __init__(self, owner: str, releases: int) -> None:
        super().__init__(owner)
        self._left = releases

    def burn(self, name: str) -> None:
        self._left -= name == "head"
        if self._left == 0:
            self.dead = True
            raise Died(self.owner)
        super().burn(name)


def release(made: Federation, name: str, releases: int = 1) -> None:
    """Have some rounds released by a leader that dies over it."""
    with pytest.raises(Died):
        made.lead(name, AfterReleases(name, releases))


def manifests(made: Federation) -> list[Manifest]:
    vault = made.vault("agg-2")
    return [vault.manifest(head) for head in heads(made)]


def asked(made: Federation) -> dict[str, int]:
    return {name: len(site.records()) for name, site in made.sites.items()}


@contextmanager
def older(made: Federation) -> Iterator[None]:
    """Let an aggregator start on a machine that nobody gave the newer roster."""
    roster, terms = made.roster, made.terms
    made.roster = replace(roster, version=1, revoked=frozenset())
    made.terms = replace(terms, revoked=frozenset())
    try:
        yield
    finally:
        made.roster, made.terms = roster, terms


def rosters(made: Federation) -> list[int]:
    return [manifest.roster for manifest in manifests(made)]


def test_a_site_is_revoked_in_mid_run_and_the_successor_goes_on() -> None:
    made = federation()
    release(made, "agg-1")
    made.revoke("site-4")
    made.lead("agg-2")
    assert rosters(made) == [1, 2, 2]
    assert manifests(made)[-1].roster_digest == made.roster.digest()
    models = made.models()
    assert len({models[f"site-{i}"] for i in (1, 2, 3)}) == 1


def test_an_aggregator_with_the_older_roster_cannot_let_the_site_in_again() -> None:
    made = federation()
    release(made, "agg-1")
    made.revoke("site-4")
    release(made, "agg-2")
    before, rows = asked(made), made.journal()
    with (
        older(made),
        pytest.raises(
            ConfigurationError,
            match="round 2 was released under roster 2, this kit has roster 1: copy",
        ),
    ):
        made.lead("agg-1")
    assert (asked(made), made.journal()) == (before, rows)
    made.lead("agg-1")
    assert rosters(made) == [1, 2, 2]


def test_before_the_first_release_under_it_a_roster_binds_nobody() -> None:
    made = federation()
    release(made, "agg-1")
    made.revoke("site-4")
    with older(made):
        made.lead("agg-2")
    assert rosters(made) == [1, 1, 1]


def test_a_manifest_nobody_committed_tells_a_leader_of_the_newer_roster_too() -> None:
    made = federation()
    release(made, "agg-1")
    made.revoke("site-4")
    steps = Fuse("agg-2")
    other = federation()
    release(other, "agg-1")
    other.revoke("site-4")
    other.lead("agg-2", steps)
    sealed = next(n for n, step in enumerate(steps.names, 1) if "put manifest" in step)
    with pytest.raises(Died):
        made.lead("agg-2", Fuse("agg-2", sealed))
    assert rosters(made) == [1]
    with older(made), pytest.raises(ConfigurationError, match="under roster 2, this"):
        made.lead("agg-1")
    made.lead("agg-1")
    assert rosters(made) == [1, 2, 2]


def test_a_run_of_an_earlier_version_goes_on_and_names_its_roster_from_then() -> None:
    made = federation(Earlier)
    release(made, "agg-1")
    made.__class__ = Federation
    made.revoke("site-4")
    made.lead("agg-2")
    assert [m.format for m in manifests(made)] == [2, 3, 3]
    assert rosters(made) == [0, 2, 2]


class Earlier(Federation):
    """One whose aggregators say nothing of their roster, as before format 3."""

    def vault(self, name: str, fuse: Fuse | None = None) -> Vault:
        made = super().vault(name, fuse)
        made._book._rosters = None
        return made


def test_what_an_aggregator_released_before_it_was_revoked_can_be_gone_on_from() -> (
    None
):
    made = federation()
    release(made, "agg-1")
    made.revoke("agg-1")
    made.vault("agg-2").require(heads(made)[-1], made.terms.plan_digest)
    assert manifests(made)[-1].writer == "agg-1"


def test_an_aggregator_is_revoked_once_the_other_released_a_round() -> None:
    made = federation()
    release(made, "agg-1")
    release(made, "agg-2")
    made.revoke("agg-1")
    made.lead("agg-2")
    assert rosters(made) == [1, 1, 2]
    assert len(set(made.models().values())) == 1
