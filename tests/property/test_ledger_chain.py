"""No byte of a ledger can change without the chain or a signature breaking."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import LedgerCorrupt
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger, Record, verify_ledger
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk

KEY = SigningKey.from_bytes(b"k" * 32)
PATH = Path("/ledger.jsonl")


def _ledger() -> bytes:
    disk = FakeDisk()
    ledger = Ledger.open(PATH, "site", KEY, disk, FakeClock())
    for number in range(3):
        ledger.append("budget.reserve", "ward \n\r\u2028", run="r", round=number)
    return disk.durable[PATH]


WHOLE = _ledger()


def _check(data: bytes) -> tuple[Record, ...]:
    return verify_ledger(PATH, FakeDisk(cached={PATH: data}), KEY.public)


def _open(data: bytes) -> tuple[Record, ...]:
    disk = FakeDisk(cached={PATH: data}, durable={PATH: data})
    return Ledger.open(PATH, "site", KEY, disk, FakeClock()).records()


@given(at=st.integers(0, len(WHOLE) - 1), mask=st.integers(1, 255))
def test_changed_byte_is_noticed(at: int, mask: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= mask
    with pytest.raises(LedgerCorrupt, match=r"line [1-5]: "):
        _check(bytes(data))
    with pytest.raises(LedgerCorrupt, match=r"line [1-4]: "):
        _open(bytes(data))


@given(at=st.integers(0, len(WHOLE)), more=st.binary(min_size=1, max_size=3))
def test_added_bytes_are_noticed(at: int, more: bytes) -> None:
    data = WHOLE[:at] + more + WHOLE[at:]
    with pytest.raises(LedgerCorrupt):
        _check(data)


@given(at=st.integers(0, len(WHOLE) - 2), count=st.integers(1, 2000))
def test_bytes_cut_from_the_middle_are_noticed(at: int, count: int) -> None:
    data = WHOLE[:at] + WHOLE[at + count :]
    if data == WHOLE[: len(data)]:  # cut at the end: only foreign heads show that
        return
    with pytest.raises(LedgerCorrupt):
        _check(data)


@given(order=st.permutations(WHOLE.splitlines(keepends=True)))
def test_only_the_written_order_holds(order: list[bytes]) -> None:
    data = b"".join(order)
    if data == WHOLE:
        assert len(_check(data)) == 4
        return
    with pytest.raises(LedgerCorrupt):
        _check(data)


@given(at=st.integers(0, len(WHOLE) - 1))
def test_any_beginning_of_a_ledger_opens(at: int) -> None:
    whole = WHOLE[:at].count(b"\n")
    records = _open(WHOLE[:at])
    assert list(records[:whole]) == list(_check(WHOLE))[:whole]


@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        _check(data)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_whole_lines_cut_from_the_end_are_not_found_by_the_chain_alone(
    kept: int,
) -> None:
    # TRUST.md section 9: 0 of 41 truncations. Only a head that others keep shows it.
    data = b"".join(WHOLE.splitlines(keepends=True)[:kept])
    assert len(_check(data)) == kept
    head = _check(WHOLE)[-1]
    assert all((r.seq, r.hash) != (head.seq, head.hash) for r in _check(data))
