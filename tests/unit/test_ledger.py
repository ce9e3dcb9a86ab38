"""A ledger: what it keeps, what it mends, what it refuses, after every power cut."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsecure.disk import LockHeld
from fedsecure.envelope import canonical
from fedsecure.errors import (
    ConfigurationError,
    LedgerCorrupt,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.keys import SigningKey
from fedsecure.ledger import (
    MAX_LINE_BYTES,
    MENDED,
    OPENED,
    Ledger,
    Record,
    verify_ledger,
)
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerLost

KEY = SigningKey.from_bytes(b"k" * 32)
OTHER = SigningKey.from_bytes(b"o" * 32)
PATH = Path("/ledger.jsonl")


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


def _open(disk: FakeDisk, key: SigningKey = KEY, name: str = "site-1") -> Ledger:
    return Ledger.open(PATH, name, key, disk, FakeClock())


def _written(disk: FakeDisk, lines: int) -> list[bytes]:
    """Return the lines of a closed ledger: its opening and `lines` - 1 acts."""
    ledger = _open(disk)
    for number in range(1, lines):
        ledger.append("round.open", f"r-{number}", run="run", round=number)
    ledger.close()
    return disk.cached[PATH].splitlines(keepends=True)


def _put(disk: FakeDisk, data: bytes) -> None:
    disk.cached[PATH] = disk.durable[PATH] = data


def _actions(ledger: Ledger) -> list[str]:
    return [record.action for record in ledger.records()]


def _resealed(line: bytes, key: SigningKey, **changed: object) -> bytes:
    """Return a line changed by somebody who holds `key`: hash and signature fit."""
    fields = {**json.loads(line), **changed}
    bare = {k: v for k, v in fields.items() if k not in {"hash", "sig"}}
    digest = hashlib.sha256(b"fedsecure-ledger-v1\0" + canonical(bare))
    fields["hash"] = digest.hexdigest()
    fields["sig"] = key.sign(digest.digest()).hex()
    return canonical(fields) + b"\n"


def test_first_line_names_the_owners_key(disk: FakeDisk) -> None:
    first = _open(disk).records()[0]
    assert (first.seq, first.action) == (1, OPENED)
    assert first.detail == {"key": KEY.public.raw.hex()}


def test_fields_of_an_act_are_kept(disk: FakeDisk) -> None:
    record = _open(disk).append(
        "round.close",
        "r-1",
        run="run",
        round=3,
        term=7,
        outcome="refused",
        code="late",
        detail={"site": "s"},
    )
    assert record == Record(
        seq=2,
        prev=record.prev,
        time="2026-01-01T00:00:00.000+00:00",
        term=7,
        action="round.close",
        object="r-1",
        outcome="refused",
        code="late",
        run="run",
        round=3,
        detail={"site": "s"},
        hash=record.hash,
        sig=record.sig,
    )


def test_each_line_holds_the_hash_of_the_line_before(disk: FakeDisk) -> None:
    _written(disk, 4)
    records = _open(disk).records()
    assert [r.prev for r in records[1:]] == [r.hash for r in records[:-1]]
    assert records[0].prev == "0" * 64


def test_line_is_canonical_json(disk: FakeDisk) -> None:
    for line in _written(disk, 3):
        assert canonical(json.loads(line)) + b"\n" == line


def test_reopened_ledger_goes_on(disk: FakeDisk) -> None:
    _written(disk, 3)
    ledger = _open(disk)
    assert ledger.append("a", "b").seq == 4
    assert ledger.head.seq == 4
    assert ledger.head.hash == ledger.records()[-1].hash


def test_time_of_day_that_jumps_back_breaks_nothing(disk: FakeDisk) -> None:
    clock = FakeClock()
    ledger = Ledger.open(PATH, "site-1", KEY, disk, clock)
    clock.jump_wall(-86400.0)
    ledger.append("a", "b")
    ledger.close()
    assert len(verify_ledger(PATH, disk, KEY.public)) == 2


def test_second_opening_is_refused_while_the_first_is_open(disk: FakeDisk) -> None:
    ledger = _open(disk)
    with pytest.raises(LockHeld):
        _open(disk)
    ledger.close()
    _open(disk).close()


def test_refused_opening_frees_the_lock(disk: FakeDisk) -> None:
    lines = _written(disk, 3)
    _put(disk, lines[0] + lines[2])
    for _ in range(2):
        with pytest.raises(LedgerCorrupt):
            _open(disk)


def test_closed_ledger_writes_nothing(disk: FakeDisk) -> None:
    ledger = _open(disk)
    ledger.close()
    with pytest.raises(StorageError, match="closed"):
        ledger.append("a", "b")


def test_after_a_failed_write_nothing_more_is_written(disk: FakeDisk) -> None:
    ledger = _open(disk)
    disk.full = True
    with pytest.raises(StorageError, match="No space"):
        ledger.append("a", "b")
    disk.full = False
    with pytest.raises(StorageError, match="an earlier write failed; restart"):
        ledger.append("a", "b")
    assert len(ledger.records()) == 1


def test_line_over_8_kib_is_refused_unwritten(disk: FakeDisk) -> None:
    ledger = _open(disk)
    with pytest.raises(VerificationError, match=f"at most {MAX_LINE_BYTES}"):
        ledger.append("a", "b", detail={"text": "x" * MAX_LINE_BYTES})
    assert ledger.append("a", "b").seq == 2


def test_ledger_over_its_size_is_refused_unwritten(disk: FakeDisk) -> None:
    ledger = Ledger.open(PATH, "site-1", KEY, disk, FakeClock(), max_bytes=1200)
    ledger.append("a", "b")
    with pytest.raises(StorageError, match="at most 1200; start a new ledger"):
        ledger.append("a", "b")
    ledger.close()
    assert len(verify_ledger(PATH, disk)) == 2


def test_number_that_json_cannot_keep_is_refused_unwritten(disk: FakeDisk) -> None:
    ledger = _open(disk)
    with pytest.raises(ConfigurationError, match="not canonical JSON"):
        ledger.append("a", "b", detail={"id": 2**53})
    assert ledger.append("a", "b").seq == 2


def test_threads_write_one_chain(disk: FakeDisk) -> None:
    ledger = _open(disk)

    def work() -> None:
        for _ in range(20):
            ledger.append("a", "b")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert len(verify_ledger(PATH, disk, KEY.public)) == 81


def test_offline_check_returns_the_lines(disk: FakeDisk) -> None:
    ledger = _open(disk)
    ledger.append("a", "b")
    assert verify_ledger(PATH, disk, KEY.public) == ledger.records()
    assert verify_ledger(PATH, disk) == ledger.records()


def test_offline_check_of_a_missing_file_says_so(disk: FakeDisk) -> None:
    with pytest.raises(NotFound):
        verify_ledger(PATH, disk)


def test_offline_check_of_an_empty_file_fails(disk: FakeDisk) -> None:
    _put(disk, b"")
    with pytest.raises(LedgerCorrupt, match="no line at all"):
        verify_ledger(PATH, disk)


# --- a torn last line is mended -------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 100, -40, -3])
def test_torn_last_line_is_cut_and_recorded(disk: FakeDisk, kept: int) -> None:
    lines = _written(disk, 3)
    torn = lines[2][:kept]
    _put(disk, lines[0] + lines[1] + torn)
    ledger = _open(disk)
    assert _actions(ledger) == [OPENED, "round.open", MENDED]
    assert ledger.records()[-1].detail == {"torn_bytes": len(torn)}


def test_last_line_that_lacks_only_its_end_is_kept(disk: FakeDisk) -> None:
    # It may be a reservation that was acknowledged: cutting it would hide spending.
    lines = _written(disk, 3)
    _put(disk, b"".join(lines)[:-1])
    assert _actions(_open(disk)) == [OPENED, "round.open", "round.open", MENDED]


def test_last_line_whose_end_was_changed_is_refused(disk: FakeDisk) -> None:
    lines = _written(disk, 3)
    _put(disk, b"".join(lines)[:-1] + b"\r")
    with pytest.raises(LedgerCorrupt, match=r"line 3: edited"):
        _open(disk)


def test_torn_first_line_begins_the_ledger_again(disk: FakeDisk) -> None:
    _put(disk, b'{"action":"led')
    assert _actions(_open(disk)) == [OPENED, MENDED]


def test_last_bytes_that_are_zero_are_a_torn_line(disk: FakeDisk) -> None:
    # Some file systems grow the file before they write the bytes.
    lines = _written(disk, 2)
    _put(disk, b"".join(lines) + bytes(300))
    assert _actions(_open(disk)) == [OPENED, "round.open", MENDED]


def test_tail_longer_than_a_line_is_no_torn_line(disk: FakeDisk) -> None:
    lines = _written(disk, 2)
    _put(disk, b"".join(lines) + b"x" * MAX_LINE_BYTES)
    with pytest.raises(LedgerCorrupt, match="line 3: edited: longer"):
        _open(disk)


def test_offline_check_mends_nothing_and_names_the_torn_line(disk: FakeDisk) -> None:
    lines = _written(disk, 3)
    _put(disk, b"".join(lines)[:-40])
    with pytest.raises(LedgerCorrupt, match="line 3: torn"):
        verify_ledger(PATH, disk)
    assert disk.cached[PATH] == b"".join(lines)[:-40]


# --- any other break is refused, with the first bad line and its kind -----------------


def _edit(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"r-1", b"r-9"), *lines[2:]]


def _edit_spaces(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"{", b"{ ", 1), *lines[2:]]


def _edit_end(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"\n", b"\r\n"), *lines[2:]]


def _edit_end_of_line(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"\n", b"\r"), *lines[2:]]


def _delete(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[2:]]


def _delete_first(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], lines[3]]


def _repeat(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1], lines[1], *lines[2:]]


def _repeat_last(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[-1]]


def _forge(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _resealed(lines[1], OTHER, object="r-9"), *lines[2:]]


def _forge_case(lines: list[bytes]) -> list[bytes]:
    fields = json.loads(lines[1])
    fields["sig"] = fields["sig"].upper()
    return [lines[0], canonical(fields) + b"\n", *lines[2:]]


def _foreign_name(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _resealed(lines[1], KEY, ledger="site-2"), *lines[2:]]


def _foreign_branch(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _resealed(lines[1], KEY, prev="1" * 64), *lines[2:]]


def _wrong_type(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _resealed(lines[1], KEY, term="seven"), *lines[2:]]


def _wrong_truth(lines: list[bytes]) -> list[bytes]:
    return [_resealed(lines[0], KEY, seq=True), *lines[1:]]


def _more_fields(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _resealed(lines[1], KEY, more=1), *lines[2:]]


def _later_format(lines: list[bytes]) -> list[bytes]:
    return [lines[0], _resealed(lines[1], KEY, v=2), *lines[2:]]


def _not_opened(lines: list[bytes]) -> list[bytes]:
    return [_resealed(lines[0], KEY, action="round.open"), *lines[1:]]


def _nested(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b"[" * 4000 + b"]" * 4000 + b"\n", *lines[2:]]


def _not_finite(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"round":1', b'"round":NaN'), *lines[2:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_edit, "line 2: edited: its hash does not match"),
        (_edit_spaces, "line 2: edited: not in canonical form"),
        (_edit_end, "line 2: edited: not in canonical form"),
        (_edit_end_of_line, "line 2: edited: not JSON"),
        (_delete, "line 2: missing lines before it: it says it is number 3"),
        (_delete_first, "line 1: missing lines before it: it says it is number 2"),
        (_swap, "line 2: reordered: it says it is number 3"),
        (_repeat, "line 3: reordered: it says it is number 2"),
        (_repeat_last, "line 5: repeated: it says it is number 4"),
        (_forge, "line 2: wrong signature: not by the ledger's owner"),
        (_forge_case, "line 2: wrong signature: not 64 bytes"),
        (_foreign_name, "line 2: foreign: of ledger 'site-2'"),
        (_foreign_branch, "line 2: foreign: it does not follow"),
        (_wrong_type, "line 2: edited: not in canonical form term"),
        (_wrong_truth, "line 1: edited: not in canonical form seq"),
        (_more_fields, "line 2: edited: not the fields"),
        (_later_format, "line 2: format 2, this version reads 1"),
        (_not_opened, "line 1: foreign: it does not open a ledger"),
        (_nested, "line 2: edited: not JSON"),
        (_not_finite, "line 2: edited: not JSON"),
    ],
)
@pytest.mark.parametrize("how", ["open", "verify"])
def test_break_is_refused_with_its_line_and_kind(
    disk: FakeDisk,
    change: Callable[[list[bytes]], list[bytes]],
    says: str,
    how: str,
) -> None:
    broken = b"".join(change(_written(disk, 4)))
    _put(disk, broken)
    with pytest.raises(LedgerCorrupt) as refused:
        _open(disk) if how == "open" else verify_ledger(PATH, disk, KEY.public)
    assert str(refused.value).startswith(f"{PATH}: {says}")
    assert disk.cached[PATH] == broken


def test_ledger_of_another_key_is_not_opened(disk: FakeDisk) -> None:
    _written(disk, 2)
    with pytest.raises(LedgerCorrupt, match="line 1: foreign key"):
        _open(disk, key=OTHER)


def test_ledger_of_another_key_does_not_verify(disk: FakeDisk) -> None:
    _written(disk, 2)
    with pytest.raises(LedgerCorrupt, match="line 1: foreign key"):
        verify_ledger(PATH, disk, OTHER.public)


def test_ledger_of_another_name_is_refused(disk: FakeDisk) -> None:
    _written(disk, 2)
    with pytest.raises(LedgerCorrupt, match="line 1: foreign: of ledger 'site-1'"):
        _open(disk, name="site-2")


@pytest.mark.parametrize("stated", ["no hex", "00", ""])
def test_first_line_without_a_key_is_refused(disk: FakeDisk, stated: str) -> None:
    lines = _written(disk, 1)
    _put(disk, _resealed(lines[0], KEY, detail={"key": stated}))
    with pytest.raises(LedgerCorrupt, match="line 1: foreign key"):
        verify_ledger(PATH, disk)


# --- power is lost after every step ---------------------------------------------------


def _acknowledged(disk: FakeDisk) -> int:
    """Write until power is lost; return how many lines were acknowledged."""
    done = 0
    try:
        ledger = _open(disk)
        done = 1
        for _ in range(2):
            ledger.append("budget.reserve", "ward")
            done += 1
    except PowerLost:
        pass
    return done


STEPS = 6  # three lines, a write and a sync each


@pytest.mark.parametrize("survives", [0, 1, 200, 10_000])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_power_cut_loses_no_acknowledged_line(step: int, survives: int) -> None:
    disk = FakeDisk(fail_at=step)
    done = _acknowledged(disk)
    ledger = _open(disk.restart(survives=survives))
    kept = [a for a in _actions(ledger) if a != MENDED]
    assert len(kept) >= done
    assert len(kept) <= max(done, 1) + 1
    assert ledger.append("a", "b").seq == len(ledger.records())


def test_these_are_all_steps() -> None:
    disk = FakeDisk()
    assert _acknowledged(disk) == STEPS / 2
    assert disk.steps == STEPS


@pytest.mark.parametrize("step", range(1, 5))
def test_power_cut_while_mending_is_mended(step: int) -> None:
    first = FakeDisk()
    lines = _written(first, 3)
    _put(first, b"".join(lines)[:-40])
    first.fail_at = first.steps + step
    with pytest.raises(PowerLost):
        _open(first)
    ledger = _open(first.restart(survives=50))
    assert _actions(ledger)[:2] == [OPENED, "round.open"]
    assert set(_actions(ledger)[2:]) <= {MENDED}


def test_disk_that_does_not_sync_loses_lines() -> None:
    # The check of the check: without fsync the tests above would notice.
    disk = FakeDisk(lying=True)
    done = _acknowledged(disk)
    assert len(_open(disk.restart()).records()) < done
