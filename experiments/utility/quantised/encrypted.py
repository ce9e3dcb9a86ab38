"""The same round as sites and an aggregator do it: under bfv, through wire bytes."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from fedsecure import ciphertext, registry
from fedsecure.ciphertext import Wire
from fedsecure.client_run import ClientRun
from fedsecure.client_update import encrypt, open_sum
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.quantiser import FixedPoint
from fedsecure.release import Release
from fedsecure.residual import Carry
from fedsecure.running_sum import RunningSum
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.sections import EncryptionConfig
from fedsecure.shelf import Shelf
from fedsecure.update import JSON, Layout, ModelUpdate, RoundId, Vector
from quantised.arms import Arm


def encrypted_mean(
    arm: Arm,
    fixed: FixedPoint,
    layout: Layout,
    number: int,
    deltas: Sequence[Vector],
    rows: Sequence[int],
    chances: Sequence[np.random.Generator | None],
    carries: Sequence[Carry | None],
) -> Vector:
    """Return the mean that sites open; what the carries would keep is dropped."""
    names = [f"site-{i}" for i in range(len(deltas))]
    plan, round_id = _plan(arm, names, max(rows)), RoundId("run", number)
    scheme = registry.load("he", "bfv").create({})
    key = scheme.keygen(bytes(16))
    total = RunningSum(key.key_id, max_summands=arm.contributors)
    shelf: Any = Shelf(registry.load("stores", "memory").create({}), "run", 1 << 30)
    for site, name in enumerate(names):
        carry = carries[site]
        made = encrypt(
            ClientRun(name, plan, shelf, scheme, _ring(key)),
            round_id,
            ModelUpdate(layout, deltas[site], rows[site]),
            fixed=fixed,
            rng=chances[site],
            carry=None if carry is None else replace(carry, number=0),
        )
        sent = b"".join(made.chunks())
        total.add(Wire(sent, key_id=key.key_id, max_summands=1))
    body = b"".join(ciphertext.to_chunks(total.total()))
    release = Release(round_id, 0, tuple((n, bytes(32)) for n in names), bytes(32))
    run = ClientRun(names[0], plan, shelf, scheme, _ring(key))
    return open_sum(run, release, body, layout.num_parameters, fixed=fixed)


def _plan(arm: Arm, names: Sequence[str], max_rows: int) -> RunPlan:
    count, sites = len(names), list[JSON](names)
    section = EncryptionConfig.model_validate(
        {
            "profile": arm.profile,
            "masking": "none",
            "max_contributors": arm.contributors,
            "rounding": arm.rounding,
            "error_feedback": arm.feedback,
            "range_from": arm.ranges,
        }
    )
    document: dict[str, JSON] = {
        "format": 1,
        "federation": "utility",
        "run": "run",
        "project": "utility",
        "dataset": "utility",
        "rounds": 100,
        "sites": sites,
        "custodians": sites,
        "min_contributors": count,
        "seed": 7,
        "metrics": "none",
        "max_rows": max_rows,
        "model": {},
        "train": {},
        "privacy": PrivacyPlan(Mode.NONE).document(),
        "encryption": section.document(count, count, private=False),
    }
    return read_plan(document)


def _ring(key: Any) -> Any:
    """Return a ring that has one key for every round."""
    return SimpleNamespace(of=lambda _: key, id_of=lambda _: key.key_id)
