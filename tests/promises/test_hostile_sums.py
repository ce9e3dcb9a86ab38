"""A sum that is not of exactly the participants' updates: no site uses it.

Its tags are wrong: it is refused, the run key ends, and the site's ledger says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedsecure import ciphertext
from fedsecure.ciphertext import Ciphertext
from fedsecure.envelope import Envelope, Kind, Scope, sign
from fedsecure.errors import (
    FedsecureError,
    KeyEnded,
    SecondAggregate,
    VerificationError,
)
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.release import release_of
from fedsecure.residues import add_modulo
from fedsecure.update import RoundId
from tests.fakes.federation import RUN, Federation
from tests.fakes.forgery import code_of, own_update
from tests.fakes.hostile import Downlink, ends, recover, trio

ME, OTHER, THIRD = "site-1", "site-2", "site-3"
SITES = [ME, OTHER, THIRD]


# --- sums -----------------------------------------------------------------------------


def answered(federation: Federation) -> Letters:
    """Return a leader's letters after all sites answered round 1."""
    leader = federation.leader("agg-1")
    letters = Letters(leader, begin(leader, None))
    for name, site in federation.sites.items():
        site.answer(letters.request(name, 1, train=True)())
    return letters


def false_release(
    federation: Federation,
    summed: Sequence[str],
    change: Callable[[Ciphertext], Ciphertext] = lambda total: total,
) -> Envelope:
    """Return a release that names all sites, over the sum of these updates."""
    updates = {site: own_update(federation, site, 1) for site in SITES}
    scope = updates[ME].scope
    made = [
        ciphertext.from_bytes(updates[s].body, key_id=scope.key_id, max_summands=1)
        for s in summed
    ]
    residues = np.zeros_like(made[0].residues)
    for part in made:
        add_modulo(residues, part.residues, part.modulus)
    seeds = tuple(seed for part in made for seed in part.seeds)
    total = Ciphertext(scope.key_id, made[0].modulus, residues, seeds, len(made))
    body = ciphertext.to_bytes(change(total))
    round_id = RoundId(RUN, 1)
    digests = {site: update.digest() for site, update in updates.items()}
    release = release_of(round_id, 0, digests, body)
    whole = Scope(round_id, "*", scope.key_id, scope.layout, scope.plan)
    header = {**release.header(), "term": 1}
    key = federation.signing("agg-1")
    return sign(Kind.RELEASE, whole, header, body, signer="agg-1", key=key)


def shifted(total: Ciphertext, slot: int) -> Ciphertext:
    """Return a sum with half of q added to one coefficient of the first block."""
    residues = total.residues.copy()
    half, modulus = np.uint64(1 << 59), np.uint64(total.modulus)
    residues[0, 0, slot] = (residues[0, 0, slot] + half) % modulus
    return replace(total, residues=residues)


@pytest.mark.parametrize("form", ["seeds", "sum"])
def test_the_sum_of_all_is_opened(form: str) -> None:
    """Without it the tests below could pass for another reason."""
    federation = Downlink(private=False, scheme="bfv") if form == "sum" else trio()
    answered(federation)
    recover(federation, ME, false_release(federation, SITES))
    assert ends(federation, ME) == []
    assert federation.sites[ME].shelf().model(1) is not None


@pytest.mark.parametrize("form", ["seeds", "sum"])
@pytest.mark.parametrize(
    "summed",
    [
        [ME] * 3,
        [OTHER] * 3,
        [OTHER],
        [OTHER, THIRD],
        [ME, OTHER, OTHER],
        [ME, OTHER, THIRD, THIRD],
    ],
    ids=["n times mine", "n times one", "one", "misses me", "one twice", "one more"],
)
def test_a_sum_of_other_updates_is_refused_and_the_key_ends(
    summed: list[str], form: str
) -> None:
    federation = Downlink(private=False, scheme="bfv") if form == "sum" else trio()
    letters = answered(federation)
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        recover(federation, ME, false_release(federation, summed))
    assert ends(federation, ME) == ["a tag failed"]
    assert federation.sites[ME].shelf().model(1) is None
    with pytest.raises(KeyEnded):  # the same again: one bit a key is all there is
        recover(federation, ME, false_release(federation, summed))
    with pytest.raises(SecondAggregate):
        recover(federation, ME, false_release(federation, SITES))
    again = federation.sites[ME].answer(letters.request(ME, 2, train=True)())
    assert code_of(again) != ""
    assert federation.sites[ME].trainer.trained[2] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: replace(t, summands=0), "summands"),
        (lambda t: replace(t, summands=17, seeds=t.seeds * 6), "summands"),
        (lambda t: replace(t, summands=94, seeds=t.seeds * 32), "summands"),
        (lambda t: replace(t, key_id=bytes(16)), "another run key"),
        (lambda t: replace(t, modulus=(1 << 60) - 1), "another run key or modulus"),
        (lambda t: replace(t, seeds=()), "one seed a summand"),
        (lambda t: replace(t, residues=t.residues[:, :, :2048]), "shape"),
        (lambda t: shifted(t, -1), "not of exactly these sites"),
    ],
)
def test_a_sum_in_another_context_is_refused(
    change: Callable[[Ciphertext], Ciphertext], said: str
) -> None:
    federation = trio()
    answered(federation)
    with pytest.raises(FedsecureError, match=said):
        recover(federation, ME, false_release(federation, SITES, change))
    assert federation.sites[ME].shelf().model(1) is None


def test_a_number_added_to_another_coefficient_than_the_tag_is_not_found() -> None:
    """What tags do not promise: docs/wire-format.md says so, and this is why."""
    federation = trio()
    answered(federation)
    recover(
        federation,
        ME,
        false_release(federation, SITES, lambda total: shifted(total, 0)),
    )
    assert ends(federation, ME) == []
