"""An update under the run key, and back: weigh, quantise, pack, tag, encrypt, open.

Everything here is linear in the integers, so the sum of what `encrypt` makes is what
`open_sum` opens (ENCRYPTION sections 4 to 6). Both go chunk by chunk, 16 blocks at a
time: what is held beside the update is a chunk and the seeds. Nothing is signed here.

Where a plan encrypts some tensors only, the encrypted blocks are made first and the
open ones after, each value once: numbers, tags, masks, residuals and chances are those
of the block's place, so an opened sum is bit for bit the one of full encryption.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from fedsecure import ciphertext, custody
from fedsecure.body import Form, cut_sum, read_open, seal_open
from fedsecure.chances import Chances
from fedsecure.ciphertext import Ciphertext, Wire
from fedsecure.client_run import ClientRun
from fedsecure.encoding import check_tags, pack, tags, unpack
from fedsecure.errors import VerificationError
from fedsecure.he import SecretKey
from fedsecure.quantiser import FixedPoint
from fedsecure.release import Release
from fedsecure.residual import Carry
from fedsecure.residues import ByteSource
from fedsecure.runplan import RunPlan
from fedsecure.selection import Selection, runs
from fedsecure.update import IntVector, ModelUpdate, RoundId, Vector
from fedsecure.updateform import selection, update_form, update_seeded


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

    def __init__(self, update: "_Update", form: Form) -> None:
        self.size = form.size
        self._update = update
        self._chunks = itertools.chain.from_iterable(
            ciphertext.wire_chunks(header, made)
            for header, made in zip(
                form.headers, (update.encrypted(), update.opened()), strict=False
            )
        )

    @property
    def saturated(self) -> int:
        """Values cut to their range so far."""
        return self._update.saturated

    def chunks(self) -> Iterator[bytes]:
        """Return the wire form, to be drawn once: header, packed residues, seeds.

        Of the encrypted blocks, and behind them of the open ones if there are any.

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
        self._fixed = fixed
        self._carry, self._mask = carry, mask
        self._weight = weight_of(run.plan, fixed, update.num_examples)
        self._length = summed_values(run.plan, len(update.delta))
        self._key = run.keys.of(round_id.number)
        self._tag_key = custody.tag_key(self._key)
        seeded = update_seeded(run.plan, len(update.delta))
        self._encryptor = run.scheme.encryptor(self._key, seeded=seeded)
        self._slots = self._encryptor.slots
        self._selected = selection(
            run.plan, len(update.delta), self._slots, update.layout
        )
        self._chances = Chances.of(rng, in_order=not self._selected.opened.size)
        self.saturated = 0

    def encrypted(self) -> Iterator[Ciphertext]:
        """Yield the blocks that are encrypted, in chunks."""
        for first, count in runs(self._selected.closed):
            yield self._encryptor.encrypt(self._blocks(first, count))

    def opened(self) -> Iterator[Ciphertext]:
        """Yield the blocks that travel open, tagged and masked like the others."""
        for first, count in runs(self._selected.opened):
            yield seal_open(self._key.key_id, self._blocks(first, count))

    def _blocks(self, first: int, count: int) -> IntVector:
        profile = self._run.plan.profile
        size = profile.a_block(self._slots)
        stop = min((first + count) * size, self._length)
        blocks = pack(self._integers(first * size, stop), profile, self._slots)
        site, round_id = self._run.site, self._round
        blocks[:, -1] = tags(self._tag_key, round_id, site, len(blocks), first)
        if self._mask is not None:
            self._mask.add(blocks, first)
        return blocks

    def _integers(self, start: int, stop: int) -> IntVector:
        values = self._update.delta[start:stop]
        if self._weight is not None:
            values = values * self._weight
            if len(values) < stop - start:
                values = np.append(values, self._weight * self._fixed.clip)
        if self._carry is not None:
            values = self._carry.add(values, start)
        found = self._fixed.quantize(values, start, self._chances.at(start))
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
    size, layout = len(update.delta), update.layout
    return Encrypted(loop, update_form(run.plan, run.scheme, key, size, layout))


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
    chosen = run.plan.fixed if fixed is None else fixed
    out = np.empty(summed_values(run.plan, size), dtype=np.float64)
    pieces, rest = cut_sum(memoryview(body), sum_parts(run, release, size))
    if len(rest):
        raise VerificationError(f"{len(rest)} bytes behind the encrypted sum")
    _Opening(run, release, chosen, unmask, out).open(pieces, size)
    return _mean(run.plan, chosen, out, len(release.sites))


def sum_parts(run: ClientRun, release: Release, size: int) -> int:
    """Return how many ciphertexts a sum consists of: two if some blocks are open."""
    chosen = _selected(run, run.keys.of(release.round.number), size)
    return 1 if chosen is None or not chosen[0].opened.size else 2


class _Opening:
    """The loop over a sum's chunks: open, unmask, check tags, unpack, forget."""

    def __init__(
        self,
        run: ClientRun,
        release: Release,
        fixed: FixedPoint,
        unmask: Mask | None,
        out: Vector,
    ) -> None:
        self._run, self._release, self._fixed = run, release, fixed
        self._unmask, self._out = unmask, out
        self._key = run.keys.of(release.round.number)
        self._tag_key = custody.tag_key(self._key)

    def open(self, pieces: Sequence[memoryview], size: int) -> None:
        """Fill the vector from a sum's ciphertexts: encrypted blocks, open ones."""
        wires = [self._wire(piece) for piece in pieces]
        chosen = _selected(self._run, self._key, size)
        decryptor = self._run.scheme.decryptor(self._key)
        if chosen is None:
            numbers = np.arange(wires[0].shape[0])
            self._fill(wires[0], numbers, len(numbers), decryptor.decrypt)
            return
        selected, slots = chosen
        _check_parts(wires, selected)
        blocks = len(selected.is_open)
        self._fill(wires[0], selected.closed, blocks, decryptor.decrypt)
        for wire in wires[1:]:
            self._fill(
                wire, selected.opened, blocks, lambda part: read_open(part, slots)
            )

    def _wire(self, piece: memoryview) -> Wire:
        limit = self._fixed.max_contributors
        return Wire(piece, key_id=self._key.key_id, max_summands=limit)

    def _fill(
        self,
        wire: Wire,
        numbers: IntVector,
        total: int,
        read: Callable[[Ciphertext], IntVector],
    ) -> None:
        """Open a ciphertext whose blocks have these numbers among `total`."""
        at = 0
        for chunk in wire.chunks():
            blocks, low = read(chunk), 0
            if total != self._run.plan.profile.blocks(len(self._out), blocks.shape[1]):
                raise VerificationError(
                    f"{total} blocks do not hold {len(self._out)} integers"
                )
            for first, count in runs(numbers[at : at + len(blocks)]):
                self._place(blocks[low : low + count], first)
                low += count
            at += len(blocks)

    def _place(self, blocks: IntVector, first: int) -> None:
        profile, out, slots = self._run.plan.profile, self._out, blocks.shape[1]
        if self._unmask is not None:
            self._unmask.add(blocks, first)
        round_id, sites = self._release.round, self._release.sites
        check_tags(blocks[:, -1], self._tag_key, round_id, sites, first)
        at = first * profile.a_block(slots)
        count = min(len(blocks) * profile.a_block(slots), len(out) - at)
        integers = unpack(blocks, profile, count)
        out[at : at + count] = self._fixed.dequantize(integers, at)


def _check_parts(wires: Sequence[Wire], selected: Selection) -> None:
    """Refuse parts that are not as the plan and this site's layout have them."""
    if len({wire.summands for wire in wires}) != 1:
        raise VerificationError(
            "encrypted and open blocks are of other numbers of updates"
        )
    found = [wire.shape[0] for wire in wires]
    wanted = [n for n in (selected.closed.size, selected.opened.size) if n]
    if found != wanted:
        raise VerificationError(
            f"a sum of {found} blocks, encrypted and open; the plan and the layout "
            f"want {wanted}"
        )


def _selected(
    run: ClientRun, key: SecretKey, size: int
) -> tuple[Selection, int] | None:
    """Return which blocks are open, and coefficients a block; None: none is.

    Asked of the layout on this site's shelf, never of the sum.
    """
    if not run.plan.encryption.encrypt_layers:
        return None
    slots = run.scheme.encryptor(key).slots
    return selection(run.plan, size, slots, run.shelf.layout()), slots


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
    # No site weighs more than one or less than nothing: a sum outside tells of a lie.
    if not 0 < weight <= contributors * (1 + 1e-9):
        raise VerificationError(
            f"the sum of {contributors} weights is {weight}, must be above 0 and at "
            f"most {contributors}"
        )
    mean: Vector = total[:-1]
    mean /= weight
    return mean
