"""One party's signed diary: chained JSON lines, durable before the act they permit.

A torn last line (a crash while writing) is mended and recorded; any other break is
refused. Who holds the signing key can rewrite everything: only heads that others keep
show that (TRUST.md section 9).
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.disk import Disk, Lock
from fedsecure.envelope import canonical
from fedsecure.errors import (
    ConfigurationError,
    LedgerCorrupt,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.keys import SigningKey, VerifyKey
from fedsecure.update import JSON

FORMAT = 1
MAX_LINE_BYTES = 8 << 10
MAX_LEDGER_BYTES = 1 << 30
OPENED, MENDED = "ledger.opened", "ledger.mended"
_LABEL = b"fedsecure-ledger-v1\0"
_NO_HASH = "0" * 64
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("ledger", "prev", "time", "action", "object"), str),
    **dict.fromkeys(("outcome", "code", "run", "hash", "sig"), str),
    **dict.fromkeys(("v", "seq", "term", "round"), int),
    "detail": dict,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a ledger; see TRUST.md section 9 for the fields."""

    seq: int
    prev: str
    time: str
    term: int
    action: str
    object: str
    outcome: str
    code: str
    run: str
    round: int
    detail: Mapping[str, JSON]
    hash: str
    sig: str


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """How long a ledger is, and the hash of its last line."""

    ledger: str
    seq: int
    hash: str


class Ledger:
    """A ledger open for writing; one process at a time, any of its threads.

    Made by `open`.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        key: SigningKey,
        disk: Disk,
        clock: Clock,
        lock: Lock,
        max_bytes: int,
    ) -> None:
        """Use `open`."""
        self._path = path
        self._name = name
        self._key = key
        self._disk = disk
        self._clock = clock
        self._lock = lock
        self._max_bytes = max_bytes
        self._records: list[Record] = []
        self._size = 0
        self._failed = False
        self._turn = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Path,
        name: str,
        key: SigningKey,
        disk: Disk,
        clock: Clock,
        *,
        max_bytes: int = MAX_LEDGER_BYTES,
    ) -> "Ledger":
        """Open a ledger, making it if missing, after verifying all of it.

        Parameters
        ----------
        max_bytes : int
            How large the file may get; a larger one is not read either.

        Raises
        ------
        LedgerCorrupt
            A line was edited, removed, added or reordered, or is another owner's;
            names the first bad line and what is wrong with it.
        StorageError
            Another process holds it, or the disk fails.
        """
        lock = disk.lock(path.with_name(path.name + ".lock"))
        try:
            ledger = cls(path, name, key, disk, clock, lock, max_bytes)
            ledger._load()
        except BaseException:
            lock.release()
            raise
        return ledger

    def append(
        self,
        action: str,
        what: str,
        *,
        run: str = "",
        round: int = 0,  # noqa: A002 - the field's name
        term: int = 0,
        outcome: str = "ok",
        code: str = "",
        detail: Mapping[str, JSON] | None = None,
    ) -> Record:
        """Write one line; durable on return.

        Parameters
        ----------
        action, what : str
            What was done, to what (the line's ``object``).
        detail : mapping, optional
            Small facts; no data values, no row counts.

        Raises
        ------
        StorageError
            Not written: what it would have permitted must not happen.
        ConfigurationError, VerificationError
            Not written: `detail` is no JSON of this house, or the line too long.
        """
        with self._turn:
            return self._append(
                {
                    "term": term,
                    "action": action,
                    "object": what,
                    "outcome": outcome,
                    "code": code,
                    "run": run,
                    "round": round,
                    "detail": dict(detail or {}),
                }
            )

    def records(self) -> tuple[Record, ...]:
        """Return all lines, oldest first."""
        return tuple(self._records)

    @property
    def head(self) -> LedgerHead:
        """Length and last hash."""
        last = self._records[-1]
        return LedgerHead(self._name, last.seq, last.hash)

    def wall(self) -> datetime:
        """Return the time of day that the next line would bear."""
        return self._clock.wall()

    def close(self) -> None:
        """Let another process open it; idempotent."""
        self._lock.release()

    def _append(self, facts: dict[str, JSON]) -> Record:
        last = self._records[-1] if self._records else None
        fields: dict[str, JSON] = {
            "v": FORMAT,
            "ledger": self._name,
            "seq": 1 if last is None else last.seq + 1,
            "prev": _NO_HASH if last is None else last.hash,
            "time": self._clock.wall().isoformat(timespec="milliseconds"),
            **facts,
        }
        digest = _hash(fields)
        fields["hash"] = digest.hex()
        fields["sig"] = self._key.sign(digest).hex()
        line = canonical(fields) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise VerificationError(
                f"ledger line of {len(line)} bytes, at most {MAX_LINE_BYTES}"
            )
        self._write(line)
        record = _record(fields)
        self._records.append(record)
        return record

    def _write(self, line: bytes) -> None:
        if not self._lock.held:
            raise StorageError(f"{self._path}: closed, or opened by another process")
        if self._size + len(line) > self._max_bytes:
            raise StorageError(
                f"{self._path}: {self._size} bytes, at most {self._max_bytes}; start "
                "a new ledger"
            )
        # After a failed write the file may end in half a line; only `open` mends that.
        if self._failed:
            raise StorageError(f"{self._path}: an earlier write failed; restart")
        self._failed = True
        self._disk.append(self._path, line)
        self._failed = False
        self._size += len(line)

    def _load(self) -> None:
        data = _read(self._path, self._disk, self._max_bytes)
        whole = data.rfind(b"\n") + 1
        tail = data[whole:]
        lines = data[:whole].split(b"\n")[:-1]
        if tail and not _is_torn(tail):
            # Whole but for its end: it may permit something, so it must not be cut.
            lines.append(tail)
        self._records = _verified(self._path, lines, self._name, self._key.public)
        self._size = whole
        if tail and lines and lines[-1] is tail:
            self._size = len(data)
            self._write(b"\n")
        elif tail:
            self._disk.truncate(self._path, whole)
        if not self._records:
            self.append(OPENED, self._name, detail={"key": self._key.public.raw.hex()})
        if tail:
            self.append(MENDED, self._name, detail={"torn_bytes": len(tail)})


def verify_ledger(
    path: Path, disk: Disk, key: VerifyKey | None = None
) -> tuple[Record, ...]:
    """Return a ledger's lines after verifying all of them; works offline.

    Parameters
    ----------
    key : VerifyKey, optional
        The owner's key; without it the first line's own key is taken, which shows
        that the chain holds but not whose it is.

    Raises
    ------
    LedgerCorrupt
        Names the first bad line and what is wrong with it; a torn last line too.
    NotFound
        No such file.
    """
    data = disk.read(path, MAX_LEDGER_BYTES)
    *lines, tail = data.split(b"\n")
    records = _verified(path, lines, None, key)
    if tail:
        raise LedgerCorrupt(f"{path}: line {len(records) + 1}: torn")
    if not records:
        raise LedgerCorrupt(f"{path}: no line at all")
    return tuple(records)


def _read(path: Path, disk: Disk, max_bytes: int) -> bytes:
    try:
        return disk.read(path, max_bytes)
    except NotFound:
        return b""


def _is_torn(tail: bytes) -> bool:
    # A crash leaves a beginning of a line, which is never a whole JSON value. A whole
    # one whose end was changed is an edit, and the chain says so.
    if len(tail) >= MAX_LINE_BYTES:
        return False
    try:
        json.JSONDecoder().raw_decode(tail.decode(errors="replace"))
    except (ValueError, RecursionError):
        return True
    return False


def _verified(
    path: Path, lines: list[bytes], name: str | None, key: VerifyKey | None
) -> list[Record]:
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = _parse(line)
            _check_hash(fields)
            _check_place(fields, lines, number)
            if number == 1:
                name, key = _owner(fields, name, key)
            _check_signature(fields, key)
            _check_chain(fields, name, records[-1].hash if records else _NO_HASH)
        except LedgerCorrupt as bad:
            raise LedgerCorrupt(f"{path}: line {number}: {bad}") from bad
        records.append(_record(fields))
    return records


def _parse(line: bytes) -> dict[str, JSON]:
    if len(line) >= MAX_LINE_BYTES:
        raise LedgerCorrupt(f"edited: longer than {MAX_LINE_BYTES} bytes")
    try:
        fields = json.loads(line)
        same = canonical(fields) == line
    except (ValueError, RecursionError, ConfigurationError) as bad:
        raise LedgerCorrupt("edited: not JSON") from bad
    if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
        raise LedgerCorrupt("edited: not the fields of a ledger line")
    wrong = [n for n, kind in _FIELDS.items() if type(fields[n]) is not kind]
    if wrong or not same:
        raise LedgerCorrupt(f"edited: not in canonical form {', '.join(wrong)}")
    if fields["v"] != FORMAT:
        raise LedgerCorrupt(f"format {fields['v']}, this version reads {FORMAT}")
    return fields


def _check_place(fields: Mapping[str, JSON], lines: list[bytes], number: int) -> None:
    seq = int(str(fields["seq"]))
    if seq == number:
        return
    if any(b'"seq":%d,' % number in line for line in lines[number:]):
        kind = "reordered"
    else:
        kind = "missing lines before it" if seq > number else "repeated"
    raise LedgerCorrupt(f"{kind}: it says it is number {seq}")


def _check_chain(fields: Mapping[str, JSON], name: str | None, prev: str) -> None:
    if fields["ledger"] != name:
        raise LedgerCorrupt(f"foreign: of ledger {fields['ledger']!r}")
    if fields["prev"] != prev:
        raise LedgerCorrupt("foreign: it does not follow the line before")


def _owner(
    fields: Mapping[str, JSON], name: str | None, key: VerifyKey | None
) -> tuple[str, VerifyKey]:
    detail = fields["detail"]
    stated = detail.get("key") if isinstance(detail, dict) else None
    if fields["action"] != OPENED or not isinstance(stated, str):
        raise LedgerCorrupt("foreign: it does not open a ledger")
    if key is None:
        try:
            key = VerifyKey(bytes.fromhex(stated))
        except (ValueError, ConfigurationError) as bad:
            raise LedgerCorrupt("foreign key: not a key at all") from bad
    if stated != key.raw.hex():
        raise LedgerCorrupt("foreign key: this ledger belongs to another owner")
    return str(fields["ledger"]) if name is None else name, key


def _check_hash(fields: Mapping[str, JSON]) -> None:
    bare = {k: v for k, v in fields.items() if k not in {"hash", "sig"}}
    if fields["hash"] != _hash(bare).hex():
        raise LedgerCorrupt("edited: its hash does not match")


def _check_signature(fields: Mapping[str, JSON], key: VerifyKey | None) -> None:
    signature, digest = str(fields["sig"]), str(fields["hash"])
    if key is None or not _SIGNATURE.fullmatch(signature):
        raise LedgerCorrupt("wrong signature: not 64 bytes in lower hexadecimal")
    try:
        key.verify(bytes.fromhex(signature), bytes.fromhex(digest))
    except VerificationError as bad:
        raise LedgerCorrupt("wrong signature: not by the ledger's owner") from bad


def _hash(fields: Mapping[str, JSON]) -> bytes:
    return hashlib.sha256(_LABEL + canonical(fields)).digest()


def _record(fields: Mapping[str, JSON]) -> Record:
    # Types are those of `_FIELDS`: `_parse` checked them, or `append` made them.
    return Record(**{n: fields[n] for n in Record.__slots__})  # type: ignore[arg-type]
