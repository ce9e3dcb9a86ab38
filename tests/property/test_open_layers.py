"""Whatever the layout and the patterns: an opened sum is that of full encryption."""

from dataclasses import replace
from functools import cache
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsecure import registry
from fedsecure.body import BodySum
from fedsecure.ciphertext import wire_bytes
from fedsecure.client_run import ClientRun
from fedsecure.client_update import encrypt, open_sum
from fedsecure.encoding import profile
from fedsecure.he import SecretKey
from fedsecure.keyring import KeyRing
from fedsecure.masks import MaskStream
from fedsecure.release import Release
from fedsecure.shelf import Shelf
from fedsecure.update import Layout, ModelUpdate, RoundId, Vector
from fedsecure.updateform import update_form
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.store import FlakyStore

SITES, ROUND = ("site-1", "site-2"), RoundId(RUN, 1)


class Ring:
    """One key for every round."""

    def __init__(self, key: SecretKey) -> None:
        self._key = key

    def of(self, number: int) -> SecretKey:
        return self._key


@cache
def rig() -> tuple[dict[str, ClientRun], KeyRing]:
    federation = Federation(rounds=1, private=False)
    federation.lead()
    runs = {s: federation.sites[s].half()._runs.get(RUN) for s in SITES}
    scheme = registry.load("he", "bfv").create({})
    ring = cast("KeyRing", Ring(scheme.keygen(bytes(16))))
    return {s: replace(r, scheme=scheme, keys=ring) for s, r in runs.items()}, ring


def run_of(
    site: str, layout: Layout, patterns: tuple[str, ...], name: str, max_rows: int
) -> ClientRun:
    run = rig()[0][site]
    shelf = Shelf(FlakyStore(), RUN, MAX_BYTES)
    shelf.keep_first_model(layout, np.zeros(layout.num_parameters))
    chosen = profile(name)
    fixed = replace(run.plan.fixed, bits=chosen.value_bits(16))
    encryption = replace(
        run.plan.encryption,
        encrypt_layers=patterns,
        profile=chosen,
        fixed=fixed,
        downlink="seeds",
    )
    plan = replace(run.plan, encryption=encryption, max_rows=max_rows)
    return replace(run, plan=plan, shelf=shelf)


def opened(
    layout: Layout,
    patterns: tuple[str, ...],
    name: str,
    max_rows: int,
    *,
    masked: bool,
    chance: bool,
) -> tuple[Vector, int]:
    """Return the mean of two updates, and the bytes of one."""
    size, key_id = layout.num_parameters, rig()[1].of(1).key_id
    runs = {s: run_of(s, layout, patterns, name, max_rows) for s in SITES}
    run = runs["site-1"]
    form = update_form(run.plan, run.scheme, rig()[1].of(1), size, layout)
    total = BodySum(key_id, len(form.headers), max_summands=16)
    for place, site in enumerate(SITES):
        delta = np.random.default_rng(place).normal(0, 0.4, size)
        made = encrypt(
            runs[site],
            ROUND,
            ModelUpdate(layout, delta, 3 + place),
            rng=np.random.default_rng(place) if chance else None,
            mask=MaskStream([(bytes([place]) * 16, 1)]) if masked else None,
        )
        body = b"".join(made.chunks())
        assert len(body) == made.size == form.size
        wires, behind = form.wires(body, key_id)
        assert not behind
        total.add(wires)
    release = Release(ROUND, 0, tuple((s, bytes(32)) for s in SITES), bytes(32))
    terms = [(bytes([place]) * 16, -1) for place in range(len(SITES))]
    unmask = MaskStream(terms) if masked else None
    data = b"".join(total.chunks())
    return open_sum(run, release, data, size, unmask=unmask), form.size


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=5),
    wanted=st.sets(st.integers(0, 4), min_size=1),
    name=st.sampled_from(["20", "8"]),
    max_rows=st.sampled_from([0, 10]),
    masked=st.booleans(),
    chance=st.booleans(),
)
def test_the_opened_sum_is_that_of_full_encryption(
    sizes: list[int],
    wanted: set[int],
    name: str,
    max_rows: int,
    *,
    masked: bool,
    chance: bool,
) -> None:
    names = tuple(f"layer{i}.w" for i in range(len(sizes)))
    layout = Layout(names, tuple((n,) for n in sizes))
    patterns = tuple({rf"layer{i % len(sizes)}\..*" for i in wanted})
    some, sent = opened(layout, patterns, name, max_rows, masked=masked, chance=chance)
    whole, full = opened(layout, (), name, max_rows, masked=masked, chance=chance)
    assert np.array_equal(some, whole)
    blocks = profile(name).blocks(sum(sizes) + (max_rows > 0), 4096)
    assert full == wire_bytes((blocks, 1, 4096), 1)
    # An open block saves its seed of 64 bytes; the second header costs 40.
    saved = full - sent
    assert saved == 0 or ((saved + 40) % 64 == 0 and saved > 0)
