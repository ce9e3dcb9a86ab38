"""An update under the run key, and back: weigh, quantise, pack, tag, encrypt, open.

Everything here is linear in the integers, so the sum of what `encrypt` makes is what
`open_sum` opens (ENCRYPTION sections 4 to 6). Both go chunk by chunk, 16 blocks at a
time: what is held beside the update is a chunk and the seeds. Nothing is signed here.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fedsecure import ciphertext, custody
from fedsecure.ciphertext import CHUNK_BLOCKS, Ciphertext, Wire
from fedsecure.client_run import ClientRun, update_form, update_seeded
from fedsecure.encoding import check_tags, pack, tags, unpack
from fedsecure.errors import VerificationError
from fedsecure.quantiser import FixedPoint
from fedsecure.release import Release
from fedsecure.residual import Carry
from fedsecure.residues import ByteSource
from fedsecure.runplan import RunPlan
from fedsecure.update import IntVector, ModelUpdate, RoundId, Vector


class Mask(Protocol):
    """What is added to coefficients under the encryption, or taken off again."""

    def add(self, blocks: IntVector, first_block: int) -> None:
        """Add modulo 2**48, in place, to all slots, the tag's included.

        Parameters
        ----------
        blocks : IntVector
            Shape (blocks, slots), int64 in [0, 2**48).
        first_block : int
            Which block of the update the first one is.
        """
        ...


class Encrypted:
    """An update on its way to the wire: made while its chunks are drawn.

    Attributes
    ----------
    size : int
        Bytes of all chunks together, known before the first.
    saturated : int
        Values cut to their range so far; of the whole update after the last chunk.
    """

    def __init__(self, update: "_Update", header: bytes) -> None:
        self.size = ciphertext.announced_bytes(header)
        self._update = update
        self._chunks = ciphertext.wire_chunks(header, update.chunks())

    @property
    def saturated(self) -> int:
        """Values cut to their range so far."""
        return self._update.saturated

    def chunks(self) -> Iterator[bytes]:
        """Return the wire form, to be drawn once: header, packed residues, seeds.

        Raises
        ------
        NotFinite
            The update holds NaN or Inf; nothing drawn before is a whole ciphertext.
        """
        return self._chunks


class _Update:
    """The loop over chunks: quantise, pack, tag, mask, encrypt, forget."""

    def __init__(
        self,
        run: ClientRun,
        round_id: RoundId,
        update: ModelUpdate,
        fixed: FixedPoint,
        rng: np.random.Generator | None,
        carry: Carry | None,
        mask: Mask | None,
    ) -> None:
        self._run, self._round, self._update = run, round_id, update
        self._fixed, self._rng = fixed, rng
        self._carry, self._mask = carry, mask
        self._weight = weight_of(run.plan, fixed, update.num_examples)
        self.saturated = 0

    def chunks(self) -> Iterator[Ciphertext]:
        run, profile = self._run, self._run.plan.profile
        seeded = update_seeded(run.plan, len(self._update.delta))
        key = run.keys.of(self._round.number)
        encryptor = run.scheme.encryptor(key, seeded=seeded)
        tag_key = custody.tag_key(key)
        step = CHUNK_BLOCKS * profile.a_block(encryptor.slots)
        length = summed_values(run.plan, len(self._update.delta))
        for turn, start in enumerate(range(0, length, step)):
            integers = self._integers(start, min(start + step, length))
            blocks, first = (
                pack(integers, profile, encryptor.slots),
                turn * CHUNK_BLOCKS,
            )
            blocks[:, -1] = tags(tag_key, self._round, run.site, len(blocks), first)
            if self._mask is not None:
                self._mask.add(blocks, first)
            yield encryptor.encrypt(blocks)

    def _integers(self, start: int, stop: int) -> IntVector:
        values = self._update.delta[start:stop]
        if self._weight is not None:
            values = values * self._weight
            if len(values) < stop - start:
                values = np.append(values, self._weight * self._fixed.clip)
        if self._carry is not None:
            values = self._carry.add(values, start)
        found = self._fixed.quantize(values, start, self._rng)
        self.saturated += found.saturated
        if self._carry is not None:
            left = self._fixed.residual(values, found.values, start)
            self._carry.keep(left, start)
        return found.values


def encrypt(
    run: ClientRun,
    round_id: RoundId,
    update: ModelUpdate,
    *,
    fixed: FixedPoint | None = None,
    rng: np.random.Generator | None = None,
    carry: Carry | None = None,
    mask: Mask | None = None,
) -> Encrypted:
    """Return an update's ciphertext, which is made while its chunks are drawn.

    Parameters
    ----------
    fixed : FixedPoint, optional
        With the round's ranges; by default the plan's.
    rng : Generator, optional
        For stochastic rounding; None: to the nearest step.
    carry : Carry, optional
        What quantising took from the last update: added, and what it takes from this
        one kept. Never with privacy on.
    mask : Mask, optional
        Under the encryption; None: none.

    Raises
    ------
    KeyMissing
        The site has no run key yet.
    """
    chosen = run.plan.fixed if fixed is None else fixed
    loop = _Update(run, round_id, update, chosen, rng, carry, mask)
    key = run.keys.of(round_id.number)
    return Encrypted(loop, update_form(run, key, len(update.delta)))


def open_sum(
    run: ClientRun,
    release: Release,
    body: ByteSource,
    size: int,
    *,
    fixed: FixedPoint | None = None,
    unmask: Mask | None = None,
) -> Vector:
    """Return the mean update that an encrypted sum stands for; shape (size,).

    Nothing of it is returned before the tags of all blocks were right.

    Parameters
    ----------
    fixed : FixedPoint, optional
        With the round's ranges; by default the plan's.
    unmask : Mask, optional
        Adds the negative of what masks are left in the sum.

    Raises
    ------
    VerificationError
        Another key or size, or tags that are not those of exactly the participants.
    """
    plan, sites = run.plan, release.sites
    chosen = plan.fixed if fixed is None else fixed
    key = run.keys.of(release.round.number)
    total = Wire(body, key_id=key.key_id, max_summands=chosen.max_contributors)
    decryptor, tag_key = run.scheme.decryptor(key), custody.tag_key(key)
    out = np.empty(summed_values(plan, size), dtype=np.float64)
    first = at = 0
    for chunk in total.chunks():
        blocks = decryptor.decrypt(chunk)
        slots = blocks.shape[1]
        if total.shape[0] != plan.profile.blocks(len(out), slots):
            raise VerificationError(
                f"{total.shape[0]} blocks do not hold {len(out)} integers"
            )
        if unmask is not None:
            unmask.add(blocks, first)
        check_tags(blocks[:, -1], tag_key, release.round, sites, first)
        count = min(len(blocks) * plan.profile.a_block(slots), len(out) - at)
        integers = unpack(blocks, plan.profile, count)
        out[at : at + count] = chosen.dequantize(integers, at)
        first, at = first + len(blocks), at + count
    return _mean(plan, chosen, out, len(sites))


def summed_values(plan: RunPlan, parameters: int) -> int:
    """Return how many values are summed: the parameters, and one weight if any.

    The weight is the last one, behind all tensors.
    """
    return parameters + (1 if plan.max_rows else 0)


def weight_of(plan: RunPlan, fixed: FixedPoint, rows: int) -> float | None:
    """Return what an update is multiplied by, or None where all weigh the same."""
    if not plan.max_rows:
        return None
    return fixed.share(min(rows, plan.max_rows) / plan.max_rows)


def _mean(plan: RunPlan, fixed: FixedPoint, total: Vector, contributors: int) -> Vector:
    """Divide a sum in place: it may be as large as memory allows but once."""
    if plan.shared_noise:  # the divisor is public and in the unit already
        return total
    if not plan.max_rows:
        total /= contributors
        return total
    weight = total[-1] / fixed.clip
    if weight <= 0:
        raise VerificationError(f"the sum of weights is {weight}, must be positive")
    mean: Vector = total[:-1]
    mean /= weight
    return mean
