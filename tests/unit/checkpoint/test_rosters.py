"""A checkpoint's roster beside a kit's: what is gone on from, and how it is refused."""

from dataclasses import replace

import pytest

from fedsecure.access.roster import Member, Role, Roster
from fedsecure.checkpoint.manifest import Manifest, Unread
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.errors import ConfigurationError
from fedsecure.keys import BoxKey, SigningKey

FEDERATION, FOREIGN = "0f" * 32, "f0" * 32
SITES = ("site-1", "site-2")


def member(name: str) -> Member:
    seed = name.encode().ljust(32, b".")
    role = Role.SITE if name.startswith("site") else Role.AGGREGATOR
    signing, box = SigningKey.from_bytes(seed), BoxKey.from_bytes(seed)
    return Member(name, role, "org", signing.public, box.public, "", "")


def roster(version: int, aggregators: str, revoked: str = "") -> Roster:
    names = (*SITES, *aggregators.split())
    members = {name: member(name) for name in names}
    until = "2030-01-01T00:00:00Z"
    return Roster(FEDERATION, version, members, until, frozenset(revoked.split()))


FIRST = roster(1, "agg-1 agg-2")
WITHOUT_SITE = roster(2, "agg-1 agg-2", "site-2")
WITHOUT_AGG = roster(3, "agg-1 agg-2", "site-2 agg-1")
JOINED = roster(4, "agg-1 agg-2 agg-3", "site-2 agg-1")


def made(under: Roster, writer: str = "agg-1", number: int = 1) -> Manifest:
    silent = Manifest(
        run="run",
        round=number,
        sequence=number,
        term=1,
        after=number - 1,
        prev="",
        release="bb",
        root="cc",
        object="obj/dd",
        size=100,
        key_id="ee",
        plan="ff",
        time="2026-01-01T00:00:00.000+00:00",
        writer=writer,
    )
    return Rosters(under).named_in(silent)


def silent(writer: str = "agg-1", number: int = 1) -> Manifest:
    named = made(FIRST, writer, number)
    return replace(named, roster=0, roster_digest="", federation="")


def unread(roster: object = 4, federation: object = FEDERATION) -> Unread:
    values = {"writer": "agg-3", "roster": roster, "federation": federation}
    return Unread(values, "manifest is by nobody")  # type: ignore[arg-type]


def test_a_manifest_names_version_digest_and_federation_of_our_roster() -> None:
    named = made(WITHOUT_SITE)
    assert (named.roster, named.federation) == (2, FEDERATION)
    assert named.roster_digest == WITHOUT_SITE.digest()


@pytest.mark.parametrize("ours", [FIRST, WITHOUT_SITE])
def test_our_own_roster_goes_on(ours: Roster) -> None:
    Rosters(ours).require(made(ours))


def test_a_newer_kit_goes_on_from_an_older_roster() -> None:
    Rosters(WITHOUT_SITE, (FIRST,)).require(made(FIRST))


def test_a_newer_kit_goes_on_from_a_roster_it_never_had() -> None:
    Rosters(WITHOUT_SITE).require(made(FIRST))


def test_an_older_kit_is_refused_with_both_versions_and_what_to_do() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"run run: round 1 was released under roster 2, this kit has roster 1: "
        r"copy roster 2 or a newer one .* into roster\.d/ of this kit, and start again",
    ):
        Rosters(FIRST).require(made(WITHOUT_SITE))


def test_another_federation_is_refused_whatever_its_version() -> None:
    foreign = replace(made(FIRST), federation=FOREIGN)
    with pytest.raises(
        ConfigurationError,
        match=f"roster 1 of federation '{FOREIGN[:16]}', this kit has roster 2 of "
        f"federation '{FEDERATION[:16]}': name the stores",
    ):
        Rosters(WITHOUT_SITE).require(foreign)


@pytest.mark.parametrize("ours", [Rosters(FIRST), Rosters(WITHOUT_SITE, (FIRST,))])
def test_another_roster_of_one_version_is_refused(ours: Rosters) -> None:
    other = made(replace(FIRST, expires="2031-01-01T00:00:00Z"))
    with pytest.raises(ConfigurationError, match="two rosters were made under one num"):
        ours.require(other)


def test_a_release_by_an_aggregator_revoked_since_counts() -> None:
    Rosters(WITHOUT_AGG, (FIRST, WITHOUT_SITE)).require(made(WITHOUT_SITE, "agg-1"))


def test_a_release_by_an_aggregator_revoked_before_is_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match="by agg-1 under roster 3, but agg-1 is revoked since roster 3 or before",
    ):
        Rosters(WITHOUT_AGG).require(made(WITHOUT_AGG, "agg-1"))


def test_who_is_revoked_in_an_older_roster_was_so_in_one_we_never_had() -> None:
    between = roster(4, "agg-1 agg-2", "site-2 agg-1")
    newest = roster(5, "agg-1 agg-2", "site-2 agg-1")
    with pytest.raises(ConfigurationError, match="revoked since roster 3 or before"):
        Rosters(newest, (WITHOUT_AGG,)).require(made(between, "agg-1"))


def test_an_aggregator_that_joined_later_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="agg-3 is no aggregator in roster 2"):
        Rosters(JOINED, (WITHOUT_SITE,)).require(made(WITHOUT_SITE, "agg-3"))


def test_who_is_missing_in_a_newer_roster_was_not_in_one_we_never_had() -> None:
    with pytest.raises(ConfigurationError, match="agg-3 is no aggregator in roster 2"):
        Rosters(JOINED, (WITHOUT_SITE,)).require(made(FIRST, "agg-3"))


def test_a_site_is_no_writer() -> None:
    with pytest.raises(ConfigurationError, match="site-1 is no aggregator"):
        Rosters(FIRST).require(made(FIRST, "site-1"))


@pytest.mark.parametrize("ours", [FIRST, WITHOUT_SITE])
def test_a_manifest_that_names_no_roster_is_not_compared(ours: Roster) -> None:
    Rosters(ours).require(silent("agg-1"))


def test_a_manifest_that_names_no_roster_ends_with_its_writer() -> None:
    with pytest.raises(
        ConfigurationError,
        match="by agg-1, which roster 3 of this kit revokes, and its manifest of "
        "format 2 does not say",
    ):
        Rosters(WITHOUT_AGG).require(silent("agg-1"))


def test_what_is_only_looked_at_need_not_name_its_roster() -> None:
    Rosters(WITHOUT_AGG).compare(silent("agg-1"))


def test_a_chain_goes_on_across_an_upgrade_and_a_revocation() -> None:
    links = [silent("agg-1", 1), made(WITHOUT_SITE, "agg-1", 2)]
    links.append(made(WITHOUT_AGG, "agg-2", 3))
    Rosters(WITHOUT_AGG, (WITHOUT_SITE,)).require_chain(links)


def test_no_chain_at_all_is_no_reason_to_refuse() -> None:
    Rosters(FIRST).require_chain([])


@pytest.mark.parametrize("last", [made(FIRST, "agg-2", 2), silent("agg-2", 2)])
def test_a_chain_never_goes_back_to_an_older_roster(last: Manifest) -> None:
    links = [made(WITHOUT_SITE, "agg-1", 1), last]
    with pytest.raises(ConfigurationError, match="round 1 before it under roster 2"):
        Rosters(WITHOUT_AGG).require_chain(links)


def test_every_link_of_a_chain_is_compared() -> None:
    links = [made(WITHOUT_AGG, "agg-1", 1), made(WITHOUT_AGG, "agg-2", 2)]
    with pytest.raises(ConfigurationError, match="round 1 was released by agg-1"):
        Rosters(WITHOUT_AGG).require_chain(links)


def test_an_unread_manifest_under_a_newer_roster_is_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"manifest/run/7: .*'agg-3' under roster 4, this kit has roster 2: .*If "
        "no roster 4 was ever made, somebody put it there",
    ):
        Rosters(WITHOUT_SITE).require_unread("manifest/run/7", unread())


def test_an_unread_manifest_of_another_federation_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=f"of federation '{FOREIGN[:16]}', this kit has roster"
    ):
        Rosters(FIRST).require_unread("manifest/run/7", unread(1, FOREIGN))


@pytest.mark.parametrize(
    "other", [unread(2), unread(0), unread(None), unread(4, ""), unread(4, None)]
)
def test_an_unread_manifest_that_says_nothing_newer_is_let_be(
    other: Unread,
) -> None:
    Rosters(WITHOUT_SITE).require_unread("manifest/run/7", other)


def test_who_was_revoked_since_lives_no_more() -> None:
    assert Rosters(WITHOUT_SITE).lives("agg-1")
    assert not Rosters(WITHOUT_AGG).lives("agg-1")
