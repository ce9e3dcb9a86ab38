"""An aggregator and some sites pool all they have: what they can compute, what not.

They hold the run key (every site does), every byte that passed the aggregator, their
own box keys, and the shares that honest sites gave. Five sites; four open a mask.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedsecure.ciphertext import announced_bytes, from_bytes
from fedsecure.encoding import pack, profile, unpack
from fedsecure.envelope import Envelope, Kind, parse
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.he import SecretKey
from fedsecure.keys import unlock
from fedsecure.masks import MaskKeys, MaskStream, _between
from fedsecure.pledge import Pledge, cut, owed, promise, read_pledge
from fedsecure.shares import SHARE_BYTES, coefficients, combine, split
from fedsecure.update import JSON, IntVector, RoundId
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.forgery import code_of

SITES = [f"site-{i}" for i in range(1, 6)]
VICTIM = "site-1"
THRESHOLD = 4
ROUND = RoundId(RUN, 1)
MASK = (1 << 48) - 1


@dataclass
class Pool:
    """All that the aggregator and its friends know after a full round."""

    federation: Federation
    friends: list[str]
    updates: dict[str, Envelope] = field(default_factory=dict)
    shares: dict[str, list[bytes]] = field(default_factory=dict)
    key: SecretKey | None = None

    def watch(self, site: str, data: bytes) -> bytes:
        envelope = parse(data, MAX_BYTES)
        if envelope.scope.round.number == 1:
            if envelope.kind == Kind.UPDATE:
                self.updates[site] = envelope
            if site in self.friends:  # before the run's end destroys it
                self.key = self.federation.sites[site].half()._runs.get(RUN).keys.of(1)
            if envelope.kind == Kind.SHARES:
                self.shares[site] = cut(envelope.body, SHARE_BYTES)
        return data

    def opened(self, site: str) -> IntVector:
        """Return a site's masked coefficients: friends hold the run key."""
        body = memoryview(self.updates[site].body)
        half = self.federation.sites[self.friends[0]].half()
        run = half._runs.get(RUN)
        end = announced_bytes(body)
        found = from_bytes(body[:end], key_id=run.keys.id_of(1), max_summands=1)
        assert self.key is not None
        return run.scheme.decryptor(self.key).decrypt(found)

    def pledge(self, site: str) -> Pledge:
        body = memoryview(self.updates[site].body)
        return read_pledge(body[announced_bytes(body) :], len(SITES))

    def keys(self, friend: str) -> MaskKeys:
        half = self.federation.sites[friend].half()
        return half._masks._of(half._runs.get(RUN), ROUND)

    def secret(self, owner: str, place: int) -> bytes | None:
        """Return one of a site's secrets if the pool can have it by any means."""
        me = SITES.index(owner)
        if SITES[place] in self.friends:
            return self.keys(SITES[place]).secret(me, ROUND)
        row = dict(zip(owed(SITES, SITES), itertools.count(), strict=False))
        if (me, place) in row:
            places = [SITES.index(s) for s in list(self.shares)[:THRESHOLD]]
            given = {p: self.shares[SITES[p]][row[me, place]] for p in places}
            return combine(given, coefficients(places))
        return None

    def unmasked(self, sites: list[str]) -> IntVector:
        """Return the sum over some sites less every mask the pool knows."""
        total = np.sum([self.opened(site) for site in sites], axis=0) & MASK
        terms = []
        for site in sites:
            for place, other in enumerate(SITES):
                if other != site and other in sites:
                    continue  # cancels
                secret = self.secret(site, place)
                if secret is not None:
                    sign = 1 if place >= SITES.index(site) else -1
                    terms.append((secret, -sign))
        MaskStream(terms).add(total, 0)
        return np.asarray(total)


@pytest.fixture(scope="module", params=[1, 2, 3])
def pool(request: pytest.FixtureRequest) -> Pool:
    federation = Federation(
        sites=5,
        rounds=1,
        min_contributors=4,
        masked=True,
        private=False,
        scheme="bfv",
        threshold=THRESHOLD,
    )
    found = Pool(federation, SITES[-request.param :])
    federation.tamper = found.watch
    federation.lead()
    return found


def truth(pool: Pool, sites: list[str]) -> IntVector:
    """Return what the sites' integers really sum to."""
    plan = pool.federation.sites[VICTIM].half()._runs.get(RUN).plan
    _, model = pool.federation.sites[VICTIM].trainer.initial({})
    total = np.zeros(model.size, dtype=np.int64)
    for site in sites:
        step = pool.federation.sites[site].trainer.step(model)
        total += plan.fixed.quantize(plan.fixed.share(0.5) * step).values
    return total


def test_the_run_key_alone_opens_an_update_to_noise(pool: Pool) -> None:
    found = unpack(pool.opened(VICTIM), profile("20"), 9)
    assert np.abs(found - truth(pool, [VICTIM])).min() > 1


def test_all_they_have_together_does_not_open_one_update(pool: Pool) -> None:
    """What is left is the masks the victim shares with honest sites: 48 fair bits."""
    own = pack(truth(pool, [VICTIM]), profile("20"), 4096)
    left = (pool.unmasked([VICTIM]) - own) & MASK
    bits = (left.reshape(-1, 1) >> np.arange(48)) & 1
    assert np.abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)


def test_they_can_compute_the_sum_of_the_honest_sites(pool: Pool) -> None:
    """A sum tells this to whoever knows the other summands; masks change no sum."""
    honest = [site for site in SITES if site not in pool.friends]
    found = unpack(pool.unmasked(honest), profile("20"), 9)
    assert np.array_equal(found, truth(pool, honest))


def test_their_shares_of_an_honest_pair_open_nothing(pool: Pool) -> None:
    """Fewer than t shares of the secret two honest sites have, by every guess."""
    me, other = SITES.index(VICTIM), SITES.index("site-2")
    promised = pool.pledge(VICTIM).promises[other]
    shares = {}
    for friend in pool.friends:
        keys, place = pool.keys(friend), SITES.index(friend)
        bundle = pool.pledge(VICTIM).bundles[place]
        plain = unlock(keys.lock_key(me), bundle, _between(ROUND, me, place))
        shares[place] = cut(plain, SHARE_BYTES)[other]
    assert len(shares) < THRESHOLD
    weights = coefficients(list(shares))
    try:
        guess = combine(shares, weights)
    except Exception:  # noqa: BLE001 - most often no 16-byte number at all
        guess = b""
    assert promise(ROUND, me, other, guess) != promised


def test_t_parties_could_open_it_and_this_is_the_stated_limit() -> None:
    secret = b"s" * 16
    shares = split(secret, 5, THRESHOLD)
    places = list(range(THRESHOLD))
    assert combine({p: shares[p] for p in places}, coefficients(places)) == secret


def test_an_honest_site_opens_no_second_set(pool: Pool) -> None:
    """Told that the victim dropped out, it would give the other half: it does not."""
    federation = pool.federation
    leader = federation.leader("agg-2")
    letters = Letters(leader, begin(leader, None))
    honest = "site-2"
    rest = [site for site in SITES if site != VICTIM]
    rows: list[JSON] = [[site, pool.updates[site].digest().hex()] for site in rest]
    place = SITES.index(honest)
    body = b"".join(pool.pledge(site).bundles[place] for site in rest)
    data = leader.sign(
        Kind.UNMASK_REQUEST,
        letters.scope(honest, 1),
        {"term": leader.term, "plan": dict(leader.terms.plan), "participants": rows},
        body,
    )
    answer = federation.sites[honest].answer(data)
    assert code_of(answer) == "second_aggregate"
    kept = [r for r in federation.sites[honest].records() if r.action == "masks.second"]
    assert kept
