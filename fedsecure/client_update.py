"""An update under the run key, and back: weigh, quantise, pack, tag, encrypt, open.

Everything here is linear in the integers, so the sum of what `encrypt` makes is what
`open_sum` opens (ENCRYPTION sections 4 to 6). Nothing is kept and nothing is signed.
"""

import numpy as np

from fedsecure import ciphertext, custody
from fedsecure.client_run import ClientRun
from fedsecure.encoding import check_tags, pack, tags, unpack
from fedsecure.errors import VerificationError
from fedsecure.release import Release
from fedsecure.runplan import RunPlan
from fedsecure.update import ModelUpdate, RoundId, Vector


def encrypt(
    run: ClientRun, round_id: RoundId, update: ModelUpdate
) -> tuple[bytes, int]:
    """Return an update's ciphertext, and how many values were cut to the range.

    Raises
    ------
    NotFinite
        The update holds NaN or Inf.
    KeyMissing
        The site has no run key yet.
    """
    plan = run.plan
    values = weigh(plan, update.delta, update.num_examples)
    quantized = plan.fixed.quantize(values)
    encryptor = run.scheme.encryptor(run.key)
    blocks = pack(quantized.values, plan.profile, encryptor.slots)
    tag_key = custody.tag_key(run.key)
    blocks[:, -1] = tags(tag_key, round_id, run.site, len(blocks))
    return ciphertext.to_bytes(encryptor.encrypt(blocks)), quantized.saturated


def open_sum(run: ClientRun, release: Release, body: bytes, size: int) -> Vector:
    """Return the mean update that an encrypted sum stands for; shape (size,).

    Raises
    ------
    VerificationError
        Another key, or tags that are not those of exactly the participants.
    """
    plan = run.plan
    total = ciphertext.from_bytes(
        body, key_id=run.key.key_id, max_summands=plan.fixed.max_contributors
    )
    blocks = run.scheme.decryptor(run.key).decrypt(total)
    tag_key = custody.tag_key(run.key)
    check_tags(blocks[:, -1], tag_key, release.round, release.sites)
    length = size + (1 if plan.max_rows else 0)
    integers = unpack(blocks, plan.profile, length)
    return unweigh(plan, plan.fixed.dequantize(integers), len(release.sites))


def weigh(plan: RunPlan, delta: Vector, rows: int) -> Vector:
    """Return what is summed: the delta, or rows/max_rows of it and the weight."""
    if not plan.max_rows:
        return delta
    weight = min(rows, plan.max_rows) / plan.max_rows
    return np.concatenate([delta * weight, [weight * plan.fixed.clip]])


def unweigh(plan: RunPlan, total: Vector, contributors: int) -> Vector:
    """Return the mean update that a sum stands for.

    Raises
    ------
    VerificationError
        The sum of weights is not positive.
    """
    if not plan.max_rows:
        return total / contributors
    weight = total[-1] / plan.fixed.clip
    if weight <= 0:
        raise VerificationError(f"the sum of weights is {weight}, must be positive")
    return np.asarray(total[:-1] / weight)
