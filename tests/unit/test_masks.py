"""Masks: they cancel in the sum, hide one update, and open for the set alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey
from fedsecure.masks import (
    MaskKeys,
    MaskStream,
    RoundMasks,
    make_masks,
    open_shares,
    removal,
)
from fedsecure.pledge import cut, owed, promise
from fedsecure.shares import SHARE_BYTES, coefficients, combine
from fedsecure.update import IntVector, RoundId
from tests.fakes.randomness import Stream

SLOTS, BLOCKS = 1024, 3
MASK = (1 << 48) - 1
ROUND = RoundId("run-1", 4)


def keys_of(count: int, key_id: bytes = b"k" * 16) -> dict[str, MaskKeys]:
    boxes = {f"s{i}": BoxKey.from_bytes(bytes([i + 1]) * 32) for i in range(count)}
    public = {name: box.public for name, box in boxes.items()}
    return {
        name: MaskKeys.agree(box, public, name, "fed|run-1", key_id)
        for name, box in boxes.items()
    }


def masks_of(
    keys: dict[str, MaskKeys], threshold: int, round_id: RoundId = ROUND
) -> dict[str, RoundMasks]:
    return {
        name: make_masks(own, round_id, threshold, Stream(name).bytes)
        for name, own in keys.items()
    }


def secrets_for(
    keys: dict[str, MaskKeys],
    masks: dict[str, RoundMasks],
    inside: list[str],
    helpers: list[str],
) -> list[bytes]:
    """Return what the helpers' shares open for the set `inside`."""
    sites = list(keys)
    pairs = owed(sites, inside)
    shares = {}
    for name in helpers:
        place = sites.index(name)
        bundles = [masks[i].pledge.bundles[place] for i in sites if i in inside]
        opened = open_shares(keys[name], ROUND, inside, bundles)
        shares[place] = cut(opened, SHARE_BYTES)
    weights = coefficients(list(shares))
    return [
        combine({p: got[row] for p, got in shares.items()}, weights)
        for row in range(len(pairs))
    ]


def updates_of(names: list[str]) -> dict[str, IntVector]:
    rng = np.random.default_rng(3)
    return {n: rng.integers(0, MASK + 1, (BLOCKS, SLOTS)) for n in names}


def masked_sum(
    updates: dict[str, IntVector], masks: dict[str, RoundMasks], inside: list[str]
) -> IntVector:
    total = np.zeros((BLOCKS, SLOTS), dtype=np.int64)
    for name in inside:
        masked = updates[name].copy()
        masks[name].stream.add(masked, 0)
        total = (total + masked) & MASK
    return total


@given(data=st.data())
def test_the_sum_over_any_set_opens_with_any_t_sites(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 5))
    names = [f"s{i}" for i in range(count)]
    inside = sorted(data.draw(st.sets(st.sampled_from(names), min_size=2)))
    threshold = data.draw(st.integers(2, len(inside)))
    helpers = data.draw(st.permutations(inside))[:threshold]
    keys = keys_of(count)
    masks, updates = masks_of(keys, threshold), updates_of(names)
    total = masked_sum(updates, masks, inside)
    removal(names, inside, secrets_for(keys, masks, inside, helpers)).add(total, 0)
    assert np.array_equal(total, sum(updates[n] for n in inside) & MASK)


def test_both_ends_of_a_pair_know_the_same_secret() -> None:
    keys = keys_of(4)
    for a, b in itertools.combinations(range(4), 2):
        one, two = keys[f"s{a}"], keys[f"s{b}"]
        assert one.secret(b, ROUND) == two.secret(a, ROUND)


def test_no_two_pairs_rounds_or_run_keys_share_a_secret() -> None:
    found = [
        keys["s0"].secret(place, RoundId("run-1", number))
        for keys in (keys_of(4), keys_of(4, b"l" * 16))
        for place in range(4)
        for number in (1, 2)
    ]
    assert len(set(found)) == len(found) == 16


def test_every_slot_is_masked_the_tag_included() -> None:
    masks = masks_of(keys_of(3), 2)
    blocks = np.zeros((BLOCKS, SLOTS), dtype=np.int64)
    masks["s0"].stream.add(blocks, 0)
    assert np.count_nonzero(blocks) > BLOCKS * SLOTS - 5
    assert blocks.min() >= 0
    assert blocks.max() <= MASK


def test_chunks_are_masked_as_the_whole_is() -> None:
    stream = masks_of(keys_of(3), 2)["s1"].stream
    whole = np.zeros((40, SLOTS), dtype=np.int64)
    stream.add(whole, 0)
    for first in (0, 1, 17, 39):
        part = np.zeros((40 - first, SLOTS), dtype=np.int64)
        stream.add(part, first)
        assert np.array_equal(part, whole[first:])


def test_a_mask_is_uniform_on_every_bit() -> None:
    """Within five standard errors of one half: a stuck or copied bit is far outside."""
    blocks = np.zeros((64, SLOTS), dtype=np.int64)
    MaskStream([(bytes(range(16)), 1)]).add(blocks, 0)
    bits = (blocks.reshape(-1, 1) >> np.arange(48)) & 1
    error = 5 * 0.5 / np.sqrt(bits.shape[0])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < error


def test_a_site_makes_another_mask_each_time() -> None:
    """Its own seed is fresh: two attempts at one round never share a mask."""
    keys, source = keys_of(3), Stream("s0")
    one, two = (make_masks(keys["s0"], ROUND, 2, source.bytes) for _ in range(2))
    assert one.pledge.promises[0] != two.pledge.promises[0]
    assert one.pledge.promises[1:] == two.pledge.promises[1:]


def test_opened_secrets_are_the_ones_promised() -> None:
    keys = keys_of(4)
    masks, inside = masks_of(keys, 3), ["s0", "s1", "s3"]
    found = secrets_for(keys, masks, inside, inside)
    for (owner, place), secret in zip(owed(list(keys), inside), found, strict=True):
        promised = masks[f"s{owner}"].pledge.promises[place]
        assert promise(ROUND, owner, place, secret) == promised


def test_shares_of_another_round_do_not_open() -> None:
    keys = keys_of(3)
    masks = masks_of(keys, 2, RoundId("run-1", 5))
    bundles = [masks[n].pledge.bundles[0] for n in keys]
    with pytest.raises(VerificationError, match="does not open"):
        open_shares(keys["s0"], ROUND, list(keys), bundles)


def test_a_bundle_for_another_site_does_not_open() -> None:
    keys = keys_of(3)
    masks = masks_of(keys, 2)
    bundles = [masks[n].pledge.bundles[1] for n in keys]
    with pytest.raises(VerificationError, match="does not open"):
        open_shares(keys["s0"], ROUND, list(keys), bundles)


def test_one_bundle_too_few_is_refused() -> None:
    keys = keys_of(3)
    with pytest.raises(VerificationError, match="2 bundles for 3 sites"):
        open_shares(keys["s0"], ROUND, list(keys), [b"", b""])


def test_nothing_secret_is_printed() -> None:
    keys = keys_of(3)
    shown = repr(keys["s0"]) + repr(masks_of(keys, 2)["s0"])
    assert keys["s0"].secret(1, ROUND).hex() not in shown
    assert "_pairs" not in shown
