"""A thousand flipped bits: one pass over the stores finds and mends every one.

And a flipped bit of a ledger is found wherever it lies.
"""

import random

import pytest

from fedsecure.checkpoint.scrub import scrub
from fedsecure.errors import LedgerCorrupt, VerificationError
from fedsecure.ledger import verify_ledger
from tests.fakes.checkpoints import bad, finished, inventory
from tests.fakes.disk import FakeDisk
from tests.fakes.federation import LEDGER, Federation

BITS, FEW, A_PASS = 1000, 60, 20
KEPT = ("manifest/", "obj/", "begin/")


def flipped(federation: Federation, dice: random.Random) -> set[tuple[int, str]]:
    """Flip a bit in each of some copies; two of a key stay good, or one."""
    keys = sorted(k for k in federation.stores[0].objects if k.startswith(KEPT))
    chosen = set[tuple[int, str]]()
    while len(chosen) < min(A_PASS, 2 * len(keys)):
        key, place = dice.choice(keys), dice.randrange(len(federation.stores))
        if sum(known == key for _, known in chosen) < 2:
            chosen.add((place, key))
    for place, key in sorted(chosen):
        store = federation.stores[place]
        data = bytearray(store.objects[key])
        at = dice.randrange(8 * len(data))
        data[at // 8] ^= 1 << at % 8
        store.objects[key] = bytes(data)
    return chosen


def pass_after_pass(bits: int) -> int:
    """Flip bits, pass, and see that nothing is left; return how many were flipped."""
    federation, dice = finished(rounds=3), random.Random(bits)  # noqa: S311
    whole = [dict(store.objects) for store in federation.stores]
    count = 0
    while count < bits:
        chosen = flipped(federation, dice)
        found = scrub(inventory(federation), 1e9, lambda: 0.0, lambda _: True)
        assert (found.bad, found.mended, found.lost) == (len(chosen), len(chosen), ())
        assert list(bad(inventory(federation))) == []
        assert [store.objects for store in federation.stores] == whole
        count += len(chosen)
    return count


def test_one_pass_finds_every_flipped_bit() -> None:
    assert pass_after_pass(FEW) >= FEW


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_one_pass_finds_every_one_of_a_thousand_flipped_bits() -> None:
    assert pass_after_pass(BITS) >= BITS


@pytest.mark.parametrize("bits", [FEW, pytest.param(BITS, marks=pytest.mark.chaos)])
def test_flipped_bit_of_a_ledger_is_found(bits: int) -> None:
    federation, dice = finished(), random.Random(bits)  # noqa: S311
    disk = federation.sites["site-2"].disk
    whole = disk.durable[LEDGER]
    for _ in range(bits):
        # The last line may be torn by a crash, which is no corruption.
        at = dice.randrange(8 * whole.rindex(b"\n", 0, -1))
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        other = FakeDisk(durable={LEDGER: bytes(data)}, cached={LEDGER: bytes(data)})
        with pytest.raises((LedgerCorrupt, VerificationError)):
            verify_ledger(LEDGER, other)
