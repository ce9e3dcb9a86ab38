"""What an aggregator may make of a sum with open blocks: nothing that is opened."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedsecure.body import BodySum
from fedsecure.ciphertext import Ciphertext, Wire, from_bytes, to_bytes
from fedsecure.envelope import Envelope, Kind, Scope, parse, sign
from fedsecure.errors import TagMismatch, VerificationError
from fedsecure.release import release_of
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import own_update
from tests.fakes.openlayers import cut, federation_of

SITES = ("site-1", "site-2", "site-3")


def summed(made: Federation, place: int, sites: Sequence[str]) -> Ciphertext:
    """Return the sum of one part of some sites' updates."""
    updates = [own_update(made, site, 1) for site in sites]
    key_id = updates[0].scope.key_id
    total = BodySum(key_id, 1, max_summands=16)
    for update in updates:
        piece = cut(update.body)[place]
        total.add((Wire(piece, key_id=key_id, max_summands=1),))
    return from_bytes(b"".join(total.chunks()), key_id=key_id, max_summands=16)


def released(made: Federation, *parts: Ciphertext) -> Envelope:
    """Return a release over all sites with this sum."""
    updates = {site: own_update(made, site, 1) for site in SITES}
    scope, body = updates["site-1"].scope, b"".join(map(to_bytes, parts))
    digests = {site: update.digest() for site, update in updates.items()}
    release = release_of(scope.round, 0, digests, body)
    whole = Scope(scope.round, "*", scope.key_id, scope.layout, scope.plan)
    key = made.signing("agg-1")
    return sign(Kind.RELEASE, whole, release.header(), body, signer="agg-1", key=key)


def forged(made: Federation, closed: Sequence[str], opened: Sequence[str]) -> Envelope:
    """Return a release over all sites with parts summed over some of them."""
    return released(made, summed(made, 0, closed), summed(made, 1, opened))


@pytest.fixture
def answered() -> Federation:
    """Return a federation whose sites sent an update and opened nothing yet."""
    made = federation_of(["head.*"])

    class Stop(Exception):
        pass

    def stop(site: str, data: bytes) -> bytes:
        if parse(data, MAX_BYTES).kind == Kind.UPDATE and site == "site-3":
            raise Stop
        return data

    made.tamper = stop
    with pytest.raises(Stop):
        made.lead()
    return made


def test_a_true_sum_is_opened(answered: Federation) -> None:
    model = answered.sites["site-1"].half().recover(forged(answered, SITES, SITES))
    assert np.abs(model - answered.expected_model()).max() < 1e-4


@pytest.mark.parametrize(
    ("closed", "opened"),
    [
        (SITES, (*SITES[:2], "site-2")),
        (("site-1", "site-2", "site-3"), ("site-3",) * 3),
    ],
)
def test_parts_of_other_sets_are_opened_by_nobody(
    answered: Federation, closed: Sequence[str], opened: Sequence[str]
) -> None:
    with pytest.raises(TagMismatch):
        answered.sites["site-1"].half().recover(forged(answered, closed, opened))
    assert answered.sites["site-1"].shelf().model(1) is None


@pytest.mark.parametrize(("closed", "opened"), [(3, 2), (2, 3), (1, 1)])
def test_parts_of_fewer_updates_are_opened_by_nobody(
    answered: Federation, closed: int, opened: int
) -> None:
    reason = "tags are wrong" if closed == opened else "other numbers of updates"
    release = forged(answered, SITES[:closed], SITES[:opened])
    with pytest.raises(VerificationError, match=reason):
        answered.sites["site-1"].half().recover(release)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("less", [True, False])
def test_a_sum_with_blocks_too_few_or_too_many_is_not_opened(
    answered: Federation, place: int, *, less: bool
) -> None:
    parts = [summed(answered, part, SITES) for part in (0, 1)]
    residues, seeds = parts[place].residues, parts[place].seeds
    more = np.concatenate([residues, residues[:1]])
    parts[place] = replace(
        parts[place],
        residues=residues[:-1] if less else more,
        seeds=tuple(s[:-64] if less else s + s[:64] for s in seeds),
    )
    with pytest.raises(VerificationError, match=r"want \[2, 4\]"):
        answered.sites["site-1"].half().recover(released(answered, *parts))


def test_a_sum_with_its_parts_swapped_is_not_opened(answered: Federation) -> None:
    parts = [summed(answered, part, SITES) for part in (1, 0)]
    with pytest.raises(VerificationError, match=r"of \[4, 2\] blocks"):
        answered.sites["site-1"].half().recover(released(answered, *parts))


def test_a_sum_without_its_open_part_is_not_opened(answered: Federation) -> None:
    with pytest.raises(VerificationError, match="too short"):
        answered.sites["site-1"].half().recover(
            released(answered, summed(answered, 0, SITES))
        )


def test_encrypted_blocks_sent_open_are_not_opened(answered: Federation) -> None:
    parts = [summed(answered, part, SITES) for part in (0, 1)]
    parts[0] = replace(parts[0], modulus=parts[1].modulus, seeds=())
    parts[0].residues[:] >>= np.uint64(2)
    with pytest.raises(VerificationError, match="another run key or modulus"):
        answered.sites["site-1"].half().recover(released(answered, *parts))
