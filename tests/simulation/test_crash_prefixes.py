"""Power is lost after any system call, and anything not synced by then may be gone.

Local store and ledger run on a real disk whose calls are written down
(`tests/fakes/powercut.py`); the journal's SQLite file is cut at every frame of its log.
For each folder that could be found then: what was acknowledged is there, what was not
is there whole or not at all, and work goes on.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure import disk, registry
from fedsecure.disk import SystemDisk
from fedsecure.errors import FedsecureError, NotFound
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger
from fedsecure.metadata import Engine, Head, JournalEntry, Step
from fedsecure.stores import Store
from tests.fakes.clock import FakeClock
from tests.fakes.powercut import Calls, unsynced, written_down

KEY = SigningKey.from_bytes(b"k" * 32)
Judge = Callable[[Path, int], str]


def found_wrong(calls: Calls, scratch: Path, judge: Judge) -> Iterator[str]:
    """Yield what is wrong with any folder that power may leave."""
    number = itertools.count()
    for moment in range(len(calls.made) + 1):
        for lost in calls.choices(moment):
            place = scratch / str(next(number))
            calls.build(moment, lost, place)
            with unsynced():
                wrong = judge(place, moment)
            if wrong:
                yield f"after call {moment}, {sorted(lost)} lost: {wrong}"
            shutil.rmtree(place)


# --- local store ----------------------------------------------------------------------

PUTS = {"a/1": b"one" * 50, "a/2": b"two" * 70, "b/c/1": b"three", "a/3": b"four" * 9}


def _local(folder: Path) -> Store:
    store: Store = registry.load("stores", "local").create({"path": folder})
    return store


def store_wrong(scratch: Path) -> str:
    """Put and delete; return what is wrong first with a folder that power may leave."""
    root, acknowledged = scratch / "store", dict[str, int]()
    root.mkdir()
    with written_down(root) as calls:
        store = _local(root)
        for key, value in PUTS.items():
            store.put(key, value)
            acknowledged[key] = len(calls.made)
        begun = len(calls.made)
        store.delete("a/2")
        ended = len(calls.made)

    def judge(place: Path, moment: int) -> str:
        for key, value in PUTS.items():
            found = _value(_local(place), key)
            if found not in (None, value):
                return f"{key} is torn"
            if key == "a/2" and moment >= begun:
                if moment >= ended and found is not None:
                    return f"{key} is back"
            elif moment >= acknowledged[key] and found is None:
                return f"{key} is lost"
        known = set(_local(place).keys(""))
        return "" if known <= set(PUTS) else f"{sorted(known)} are listed"

    return next(found_wrong(calls, scratch / "found", judge), "")


def _files(folder: Path) -> dict[Path, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in found}


def _value(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key, 1000)
    except NotFound:
        return None


def test_local_store_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    assert store_wrong(tmp_path) == ""


# --- ledger ---------------------------------------------------------------------------


def _ledger(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger.jsonl", "site", KEY, SystemDisk(), FakeClock())


def ledger_wrong(scratch: Path) -> str:
    """Append lines; return what is wrong first with a folder that power may leave."""
    root, acknowledged = scratch / "ledger", list[int]()
    root.mkdir()
    with written_down(root) as calls:
        ledger = _ledger(root)
        acknowledged.append(len(calls.made))
        for number in range(4):
            ledger.append("budget.reserve", f"round {number}", round=number)
            acknowledged.append(len(calls.made))
        whole = [record.hash for record in ledger.records()]
        ledger.close()
    opened = len(whole) - 4

    def judge(place: Path, moment: int) -> str:
        promised = [n for n, at in enumerate(acknowledged) if at <= moment]
        least = opened + promised[-1] if promised else 0
        try:
            ledger = _ledger(place)
            found = [record.hash for record in ledger.records()]
            ledger.append("budget.reserve", "goes on", round=9)
            ledger.close()
        except FedsecureError as stopped:
            return f"it does not open: {stopped}"
        if promised and found[:least] != whole[:least]:
            return f"{len(found)} of {least} lines are there"
        return ""

    return next(found_wrong(calls, scratch / "found", judge), "")


def test_ledger_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    assert ledger_wrong(tmp_path) == ""


# --- each sync is needed --------------------------------------------------------------


@pytest.mark.parametrize("wrong", [store_wrong, ledger_wrong])
def test_folder_that_is_not_synced_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    wrong: Callable[[Path], str],
) -> None:
    monkeypatch.setattr(disk, "_sync_folder", lambda _: None)
    assert wrong(tmp_path) != ""


@pytest.mark.parametrize("wrong", [store_wrong, ledger_wrong])
def test_file_that_is_not_synced_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: Callable[[Path], str]
) -> None:
    note = Calls.note

    def deaf(self: Calls, kind: str, where: int | Path, **more: object) -> None:
        if kind != "sync":
            note(self, kind, where, **more)

    monkeypatch.setattr(Calls, "note", deaf)
    assert wrong(tmp_path) != ""


def test_whatever_the_disk_does_is_written_down(tmp_path: Path) -> None:
    root, found = tmp_path / "store", tmp_path / "found"
    root.mkdir()
    with written_down(root) as calls:
        for key, value in PUTS.items():
            _local(root).put(key, value)
    calls.build(len(calls.made), frozenset(), found)
    assert len(_files(root)) == len(PUTS)
    assert _files(found) == _files(root)


# --- the embedded journal -------------------------------------------------------------

FRAME, FIRST = 24 + 4096, 32
ENTRY = JournalEntry("run", 1, Step.UPDATE, "s", "op", b"x" * 3000)


def _engine(folder: Path) -> Engine:
    engine: Engine = registry.load("metadata", "embedded").create({"path": folder})
    return engine


def _told(folder: Path) -> tuple[object, ...]:
    journal = _engine(folder).journal
    return (*journal.entries("run", 0), journal.head("run"))


def _history(folder: Path) -> tuple[list[tuple[object, ...]], list[int]]:
    """Write; return what was told after each transaction, and the log's length then."""
    engine, log = _engine(folder), folder / "journal.sqlite-wal"
    told, sizes = [_told(folder)], [log.stat().st_size if log.exists() else 0]
    for number in range(1, 3):
        rows = [
            replace(ENTRY, round=number, site=f"s{n}", operation=f"op-{number}-{n}")
            for n in range(3)
        ]
        engine.journal.append(number, rows)
        told.append(_told(folder))
        sizes.append(log.stat().st_size)
        head = Head("run", number, number, bytes([number]) * 32, number)
        engine.journal.advance(number, engine.journal.head("run"), head)
        told.append(_told(folder))
        sizes.append(log.stat().st_size)
    shutil.copytree(folder, folder.parent / "left")
    return told, sizes


def _found(left: Path, place: Path, log: bytes) -> tuple[object, ...]:
    place.mkdir()
    shutil.copy(left / "journal.sqlite", place)
    (place / "journal.sqlite-wal").write_bytes(log)
    told = _told(place)
    shutil.rmtree(place)
    return told


def test_journal_cut_anywhere_holds_whole_transactions(tmp_path: Path) -> None:
    told, sizes = _history(tmp_path / "lease")
    left = tmp_path / "left"
    log = (left / "journal.sqlite-wal").read_bytes()
    assert len(set(sizes)) == len(sizes)
    cuts = {*range(FIRST, len(log) + 1, FRAME), *range(FIRST, len(log) + 1, 997)}
    for cut in sorted(cuts):
        last = max(i for i, size in enumerate(sizes) if size <= max(cut, sizes[0]))
        assert _found(left, tmp_path / "found", log[:cut]) == told[last]


def test_frames_that_never_reached_the_disk_take_their_whole_transaction(
    tmp_path: Path,
) -> None:
    told, sizes = _history(tmp_path / "lease")
    left = tmp_path / "left"
    log = (left / "journal.sqlite-wal").read_bytes()
    for number in range(1, len(sizes)):
        start, end = max(sizes[number - 1], FIRST), sizes[number]
        frames = range(start, end, FRAME)
        for count in range(1, min(3, len(frames)) + 1):
            for lost in itertools.combinations(frames, count):
                torn = bytearray(log[:end])
                for at in lost:
                    torn[at : at + FRAME] = bytes(FRAME)
                found = _found(left, tmp_path / "found", bytes(torn))
                assert found == told[number - 1]
