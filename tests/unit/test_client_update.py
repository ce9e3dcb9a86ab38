"""An update on its way to the wire and a sum on its way back, chunk by chunk."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from fedsecure import registry
from fedsecure.ciphertext import CHUNK_BLOCKS, Wire, to_bytes
from fedsecure.client_run import ClientRun
from fedsecure.client_update import encrypt, open_sum, summed_values
from fedsecure.errors import FedsecureError, NotFinite, VerificationError
from fedsecure.he import SecretKey
from fedsecure.keyring import KeyRing
from fedsecure.ranges import Ranges
from fedsecure.release import Release
from fedsecure.running_sum import RunningSum
from fedsecure.update import IntVector, Layout, ModelUpdate, RoundId, Vector
from fedsecure.updateform import update_form
from tests.fakes.federation import RUN, Federation

SITES = ("site-1", "site-2", "site-3")
ROUND = RoundId(RUN, 1)
A_CHUNK = CHUNK_BLOCKS * 8190  # parameters, profile 20
SIZE = A_CHUNK + 100


class Shift:
    """A mask that is one number, and what it was asked for."""

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self.asked: list[tuple[int, int]] = []

    def add(self, blocks: IntVector, first_block: int) -> None:
        self.asked.append((first_block, len(blocks)))
        blocks += self._amount
        blocks &= (1 << 48) - 1


class Ring:
    """One key for every round."""

    def __init__(self, key: SecretKey) -> None:
        self._key = key

    def of(self, number: int) -> SecretKey:
        return self._key


@pytest.fixture(scope="module")
def runs() -> dict[str, ClientRun]:
    federation = Federation(rounds=1)
    federation.lead()  # the run is over then, and so are its keys
    found = {site: federation.sites[site].half()._runs.get(RUN) for site in SITES}
    scheme = registry.load("he", "bfv").create({})
    keys = cast(KeyRing, Ring(scheme.keygen(bytes(16))))
    return {s: replace(run, scheme=scheme, keys=keys) for s, run in found.items()}


def changed(run: ClientRun, *, downlink: str = "seeds", max_rows: int = 0) -> ClientRun:
    encryption = replace(run.plan.encryption, downlink=downlink)
    return replace(
        run, plan=replace(run.plan, encryption=encryption, max_rows=max_rows)
    )


def update(seed: int, size: int = SIZE, rows: int = 1) -> ModelUpdate:
    delta = np.random.default_rng(seed).normal(0, 0.1, size)
    return ModelUpdate(Layout(("w",), ((size,),)), delta, rows)


def sealed(run: ClientRun, made: ModelUpdate, mask: Shift | None = None) -> bytes:
    return b"".join(encrypt(run, ROUND, made, mask=mask).chunks())


def total(run: ClientRun, bodies: Sequence[bytes]) -> bytes:
    key_id = run.keys.of(1).key_id
    running = RunningSum(key_id, max_summands=16)
    for body in bodies:
        running.add(Wire(body, key_id=key_id, max_summands=1))
    return to_bytes(running.total())


def release(sites: Sequence[str] = SITES) -> Release:
    return Release(ROUND, 0, tuple((site, bytes(32)) for site in sites), bytes(32))


def rounded(run: ClientRun, values: Vector) -> IntVector:
    return run.plan.fixed.quantize(values).values


# --- out ------------------------------------------------------------------------------


@pytest.mark.parametrize("downlink", ["seeds", "sum"])
@pytest.mark.parametrize("size", [1, 8190, 8191, A_CHUNK, A_CHUNK + 1])
def test_chunks_are_as_many_bytes_as_was_said_before(
    runs: dict[str, ClientRun], downlink: str, size: int
) -> None:
    made = encrypt(changed(runs["site-1"], downlink=downlink), ROUND, update(1, size))
    assert made.size == sum(len(chunk) for chunk in made.chunks())


@pytest.mark.parametrize("downlink", ["seeds", "sum"])
@pytest.mark.parametrize("max_rows", [0, 10])
def test_updates_begin_with_the_form_that_the_custodian_names(
    runs: dict[str, ClientRun], downlink: str, max_rows: int
) -> None:
    run = changed(runs["site-1"], downlink=downlink, max_rows=max_rows)
    form = update_form(run.plan, run.scheme, run.keys.of(1), SIZE).to_bytes()
    assert sealed(run, update(1)).startswith(form)


def test_nothing_is_encrypted_before_it_is_drawn(runs: dict[str, ClientRun]) -> None:
    mask = Shift(0)
    chunks = encrypt(runs["site-1"], ROUND, update(1), mask=mask).chunks()
    next(chunks)  # the header
    assert mask.asked == []
    next(chunks)
    assert mask.asked == [(0, CHUNK_BLOCKS)]


def test_chunks_are_drawn_once(runs: dict[str, ClientRun]) -> None:
    made = encrypt(runs["site-1"], ROUND, update(1))
    assert list(made.chunks())
    assert list(made.chunks()) == []


def test_two_encryptions_of_one_update_share_no_seed_and_no_residue(
    runs: dict[str, ClientRun],
) -> None:
    run, made = runs["site-1"], update(1, 100)
    one, two = (
        next(
            Wire(
                sealed(run, made), key_id=run.keys.of(1).key_id, max_summands=1
            ).chunks()
        )
        for _ in range(2)
    )
    assert one.seeds != two.seeds
    assert not (one.residues == two.residues).any()


def test_values_beyond_the_range_are_counted_in_all_chunks(
    runs: dict[str, ClientRun],
) -> None:
    made = update(1)
    made.delta[[0, 7, A_CHUNK, -1]] = 1e9
    running = encrypt(runs["site-1"], ROUND, made)
    before = running.saturated
    list(running.chunks())
    assert (before, running.saturated) == (0, 4)


def test_a_value_that_is_no_number_stops_the_chunks(runs: dict[str, ClientRun]) -> None:
    made = update(1)
    made.delta[-1] = np.nan  # after the update was checked
    chunks = encrypt(runs["site-1"], ROUND, made).chunks()
    with pytest.raises(NotFinite):
        list(chunks)


def test_encrypting_leaves_the_update_as_it_was(runs: dict[str, ClientRun]) -> None:
    made = update(1)
    sealed(changed(runs["site-1"], max_rows=10), made)
    assert np.array_equal(made.delta, update(1).delta)


# --- back -----------------------------------------------------------------------------


@pytest.mark.parametrize("downlink", ["seeds", "sum"])
@pytest.mark.parametrize("size", [1, 8190, A_CHUNK, A_CHUNK + 1, SIZE])
def test_a_sum_opens_to_the_mean_of_what_was_rounded(
    runs: dict[str, ClientRun], downlink: str, size: int
) -> None:
    run = changed(runs["site-1"], downlink=downlink)
    updates = [update(i, size) for i in range(3)]
    parts = [
        sealed(changed(runs[s], downlink=downlink), u)
        for s, u in zip(SITES, updates, strict=True)
    ]
    opened = open_sum(run, release(), total(run, parts), size)
    steps = sum(rounded(run, u.delta) for u in updates)
    assert np.array_equal(np.rint(opened * 3 * run.plan.fixed.scale), steps)


def test_updates_weigh_by_their_rows_and_the_mean_does_too(
    runs: dict[str, ClientRun],
) -> None:
    rows = dict(zip(SITES, (2, 3, 5), strict=True))
    updates = {s: update(i, rows=rows[s]) for i, s in enumerate(SITES)}
    parts = [sealed(changed(runs[s], max_rows=5), updates[s]) for s in SITES]
    run = changed(runs["site-1"], max_rows=5)
    opened = open_sum(run, release(), total(run, parts), SIZE)
    expected = sum(updates[s].delta * rows[s] for s in SITES) / 10
    np.testing.assert_allclose(opened, expected, atol=4 / run.plan.fixed.scale)


@pytest.mark.parametrize("size", [8189, A_CHUNK - 1, A_CHUNK])
def test_the_weight_may_be_a_chunk_of_its_own(
    runs: dict[str, ClientRun], size: int
) -> None:
    run = changed(runs["site-1"], max_rows=5)
    assert summed_values(run.plan, size) == size + 1
    parts = [sealed(run, update(1, size, rows=5))]
    opened = open_sum(run, release(("site-1",)), total(run, parts), size)
    steps = rounded(run, update(1, size).delta)
    np.testing.assert_allclose(opened * run.plan.fixed.scale, steps, atol=1e-6)


@pytest.mark.parametrize(
    "named",
    [("site-1",), ("site-1", "site-2", "site-4"), ("site-1", "site-1", "site-2")],
)
def test_a_sum_of_other_sites_than_named_is_not_opened(
    runs: dict[str, ClientRun], named: tuple[str, ...]
) -> None:
    body = total(runs["site-1"], [sealed(runs[s], update(1, 100)) for s in SITES])
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        open_sum(runs["site-1"], release(named), body, 100)


@pytest.mark.parametrize("block", [0, 5, CHUNK_BLOCKS - 1, CHUNK_BLOCKS])
def test_one_block_of_another_round_gives_nothing_of_the_others(
    runs: dict[str, ClientRun], block: int
) -> None:
    run, packed = runs["site-1"], 30_720
    mixed = bytearray(sealed(run, update(1)))
    late = b"".join(encrypt(run, RoundId(RUN, 2), update(1)).chunks())
    seeds = 40 + (CHUNK_BLOCKS + 1) * packed
    for start, size in ((40 + block * packed, packed), (seeds + block * 64, 64)):
        mixed[start : start + size] = late[start : start + size]
    with pytest.raises(VerificationError, match=r"1 of 16? tags"):
        open_sum(run, release(("site-1",)), mixed, SIZE)


def test_ranges_by_tensor_hold_on_both_sides_of_a_chunks_edge(
    runs: dict[str, ClientRun],
) -> None:
    run = runs["site-1"]
    clip = run.plan.fixed.clip
    ends = (10, A_CHUNK - 5, A_CHUNK + 20, SIZE)
    bounds = (clip, clip / 64, clip / 8, clip / 2)
    fixed = run.plan.fixed.within(Ranges(clip, ends, bounds))
    made = update(1)
    made.delta[:] *= clip / 100
    body = b"".join(encrypt(run, ROUND, made, fixed=fixed).chunks())
    opened = open_sum(run, release(("site-1",)), body, SIZE, fixed=fixed)
    steps = fixed.quantize(made.delta).values
    assert np.array_equal(opened, fixed.dequantize(steps))


@pytest.mark.parametrize("size", [1, A_CHUNK, 2 * A_CHUNK + 1])
def test_a_sum_of_another_size_is_not_opened(
    runs: dict[str, ClientRun], size: int
) -> None:
    run = runs["site-1"]
    with pytest.raises(VerificationError, match="do not hold"):
        open_sum(run, release(("site-1",)), sealed(run, update(1)), size)


# --- masks ----------------------------------------------------------------------------


def test_a_mask_is_asked_for_every_block_once_and_in_order(
    runs: dict[str, ClientRun],
) -> None:
    mask = Shift(5)
    sealed(runs["site-1"], update(1), mask)
    assert mask.asked == [(0, CHUNK_BLOCKS), (CHUNK_BLOCKS, 1)]


def test_masks_that_cancel_in_the_sum_leave_it_as_it_was(
    runs: dict[str, ClientRun],
) -> None:
    masks = [Shift((1 << 47) + 12345), Shift((1 << 47) - 12345), Shift(0)]
    pairs = zip(SITES, masks, strict=True)
    parts = [sealed(runs[s], update(i), m) for i, (s, m) in enumerate(pairs)]
    plain = [sealed(runs[s], update(i)) for i, s in enumerate(SITES)]
    run = runs["site-1"]
    opened = open_sum(run, release(), total(run, parts), SIZE)
    assert np.array_equal(opened, open_sum(run, release(), total(run, plain), SIZE))


def test_what_is_left_of_masks_is_taken_off_before_the_tags_are_checked(
    runs: dict[str, ClientRun],
) -> None:
    run, alone = runs["site-1"], release(("site-1",))
    body = sealed(run, update(1), Shift(777))
    unmask = Shift(-777)
    opened = open_sum(run, alone, body, SIZE, unmask=unmask)
    assert np.array_equal(opened, open_sum(run, alone, sealed(run, update(1)), SIZE))
    assert unmask.asked == [(0, CHUNK_BLOCKS), (CHUNK_BLOCKS, 1)]


def test_a_masked_update_does_not_open_without_its_mask(
    runs: dict[str, ClientRun],
) -> None:
    run = runs["site-1"]
    with pytest.raises(FedsecureError, match="not of exactly these sites"):
        open_sum(run, release(("site-1",)), sealed(run, update(1), Shift(777)), SIZE)
