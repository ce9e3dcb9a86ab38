"""False pledges, shares and mask secrets: a round is skipped rather than wrong.

What masks need is promised in signed updates: what does not fit its promise opens
nothing, and the others' shares are tried.
"""

import json
from collections.abc import Callable, Sequence

import pytest

from fedsecure import parts
from fedsecure.ciphertext import announced_bytes
from fedsecure.envelope import Envelope, Kind, parse, sign, verify
from fedsecure.errors import VerificationError
from fedsecure.metadata import Step
from fedsecure.pledge import pledge_bytes
from fedsecure.release import release_of
from fedsecure.shares import PRIME, SECRET_BYTES, SHARE_BYTES
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import altered
from tests.fakes.hostile import (
    HONEST,
    LIAR,
    ends,
    lies,
    off_by,
    recover,
    rejected,
    steps,
    trio,
)

ME, OTHER, THIRD = "site-1", "site-2", "site-3"
SITES = [ME, OTHER, THIRD]
STEP = 1e-5
DIGEST_BYTES = 32


# --- pledges --------------------------------------------------------------------------


def pledged(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return what changes the pledge behind a ciphertext only."""

    def whole(body: bytes) -> bytes:
        at = announced_bytes(body)
        return body[:at] + change(body[at:])

    return whole


@pytest.mark.parametrize(
    "change",
    [
        lambda pledge: b"",
        lambda pledge: pledge[:-1],
        lambda pledge: pledge + b"\0",
        lambda pledge: pledge[: len(pledge) // 2],
        lambda pledge: pledge[:DIGEST_BYTES],
        lambda pledge: pledge * 2,
        lambda pledge: bytes(pledge_bytes(4)),
        lambda pledge: bytes(pledge_bytes(2)),
    ],
    ids=["none", "cut", "longer", "half", "one", "twice", "of 4 sites", "of 2 sites"],
)
def test_a_pledge_of_another_size_is_refused_and_the_round_goes_on(
    change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    federation = trio(masked=True)
    lies(federation, pledged(change))
    federation.lead()
    assert set(rejected(federation)) == {(LIAR, "verification")}
    assert off_by(federation, HONEST) < STEP
    assert "mask pledge of" in caplog.text


def _flipped(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        out = bytearray(data)
        out[at] ^= 1
        return bytes(out)

    return change


def skipped_not_wrong(federation: Federation) -> None:
    """Check that round 1 opened nothing and that round 2 is the mean of all."""
    federation.lead()
    assert (1, Step.SKIP) in steps(federation)
    assert (1, Step.RELEASE) not in steps(federation)
    assert "skipped" in {event for event, _ in federation.notes.events}
    models = {federation.sites[name].shelf().model(2) is None for name in HONEST}
    assert models == {False}
    assert off_by(federation, SITES) < STEP


@pytest.mark.parametrize("place", range(3))
def test_a_false_promise_skips_the_round_if_its_secret_is_owed(place: int) -> None:
    federation = trio(masked=True, rounds=2)
    change = pledged(_flipped(place * DIGEST_BYTES))
    lies(federation, change, number=1)
    if place == SITES.index(LIAR):  # its self mask's is always owed
        skipped_not_wrong(federation)
    else:
        federation.lead()
        assert (1, Step.RELEASE) in steps(federation)


def test_bundles_that_do_not_open_skip_the_round_and_their_maker_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    federation = trio(masked=True, rounds=2)

    def change(pledge: bytes) -> bytes:
        return pledge[: 3 * DIGEST_BYTES] + bytes(len(pledge) - 3 * DIGEST_BYTES)

    lies(federation, pledged(change), number=1)
    skipped_not_wrong(federation)
    assert {code for _, code in rejected(federation)} == {"verification"}
    assert f"bundle of mask shares by {LIAR} does not open" in caplog.text


# --- shares ---------------------------------------------------------------------------


def false_shares(federation: Federation, liars: Sequence[str], share: int) -> None:
    """Have these sites answer with other shares in round 1."""

    def tamper(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if site not in liars or found.kind != Kind.SHARES:
            return data
        if found.scope.round.number != 1:
            return data
        count = len(found.body) // SHARE_BYTES
        return altered(
            federation, data, body=share.to_bytes(SHARE_BYTES, "little") * count
        )

    federation.tamper = tamper


@pytest.mark.parametrize("share", [0, 1, PRIME - 1, PRIME, (1 << 136) - 1])
def test_false_shares_beyond_the_threshold_skip_the_round(share: int) -> None:
    federation = trio(masked=True, rounds=2)  # two of three open
    false_shares(federation, [OTHER, THIRD], share)
    skipped_not_wrong(federation)


@pytest.mark.parametrize("share", [0, PRIME])
def test_false_shares_within_the_threshold_change_nothing(share: int) -> None:
    federation = trio(masked=True)
    false_shares(federation, [ME], share)
    federation.lead()
    assert off_by(federation, SITES) < STEP
    assert "false_shares" in {event for event, _ in federation.notes.events}


@pytest.mark.parametrize("size", [0, 1, SHARE_BYTES - 1, SHARE_BYTES, SHARE_BYTES * 9])
def test_shares_of_another_number_are_refused_and_others_are_used(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    federation = trio(masked=True)
    lies(federation, lambda _: bytes(size), Kind.SHARES, liar=ME)
    federation.lead()
    assert off_by(federation, SITES) < STEP
    assert "shares, must be" in caplog.text or "no list of" in caplog.text


@pytest.mark.parametrize("signed_again", [False, True])
def test_shares_of_another_round_do_not_open_this_one(*, signed_again: bool) -> None:
    federation, old = trio(masked=True, rounds=2), dict[str, bytes]()

    def tamper(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if site != ME or found.kind != Kind.SHARES:
            return data
        first = old.setdefault(site, data)
        if found.scope.round.number == 1 or not signed_again:
            return first
        return altered(federation, data, body=bytes(parse(first, MAX_BYTES).body))

    federation.tamper = tamper
    federation.lead()
    assert off_by(federation, SITES, rounds=2) < 2 * STEP


# --- releases -------------------------------------------------------------------------


def unopened(federation: Federation) -> Envelope:
    """Play a run in which one site never gets round 1's release; return it."""
    site, found = federation.sites[ME], list[Envelope]()
    answer = site.answer

    def watched(data: bytes) -> bytes:
        key = federation.signing("agg-1").public
        letter = verify(parse(data, MAX_BYTES), key, kinds=tuple(Kind))
        pieces = parts.split(letter) if letter.kind == Kind.REQUEST else []
        release = parts.one(pieces, "release")
        if release is None:
            return answer(data)
        found.append(parse(bytes(release), MAX_BYTES))
        return b"gone"

    site.answer = watched  # type: ignore[method-assign]
    federation.lead()
    site.answer = answer  # type: ignore[method-assign]
    return found[0]


def over(federation: Federation, release: Envelope, body: bytes) -> Envelope:
    """Return a release of the same set over another body, signed and consistent."""
    rows = json.loads(release.header)["participants"]
    digests = {site: bytes.fromhex(digest) for site, digest in rows}
    made = release_of(release.scope.round, 0, digests, body)
    key, header = federation.signing("agg-1"), {**made.header(), "term": 1}
    return sign(Kind.RELEASE, release.scope, header, body, signer="agg-1", key=key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda secrets: b"", "0 mask secrets, must be 3"),
        (lambda secrets: secrets[SECRET_BYTES:], "2 mask secrets, must be 3"),
        (lambda secrets: secrets + secrets[:SECRET_BYTES], "4 mask secrets"),
        (lambda secrets: secrets[:-1], "no list of 16"),
        (_flipped(0), "not of exactly these sites"),
        (_flipped(-1), "not of exactly these sites"),
        (lambda secrets: bytes(len(secrets)), "not of exactly these sites"),
        (lambda s: s[:SECRET_BYTES] * 3, "not of exactly these sites"),
    ],
    ids=["none", "less", "more", "cut", "first", "last", "zeros", "one thrice"],
)
def test_a_release_with_other_mask_secrets_is_refused(
    change: Callable[[bytes], bytes], said: str
) -> None:
    federation = trio(masked=True)
    release = unopened(federation)
    at = announced_bytes(release.body)
    body, secrets = bytes(release.body[:at]), bytes(release.body[at:])
    with pytest.raises(VerificationError, match=said):
        recover(federation, ME, over(federation, release, body + change(secrets)))
    assert federation.sites[ME].shelf().model(1) is None
    tagged = said == "not of exactly these sites"
    assert ends(federation, ME) == (["a tag failed"] if tagged else [])


def test_the_release_as_it_was_is_opened() -> None:
    """Without it the test above could pass for another reason."""
    federation = trio(masked=True)
    recover(federation, ME, unopened(federation))
    assert off_by(federation, SITES) < STEP


def test_a_changed_release_of_another_signer_is_refused() -> None:
    federation = trio(masked=True)
    release = unopened(federation)
    data = altered(
        federation, release.to_bytes(), signer=LIAR, key=federation.signing(LIAR)
    )
    with pytest.raises(VerificationError):
        federation.sites[ME].half().recover(parse(data, MAX_BYTES))
    assert ends(federation, ME) == []
