"""One party's signed diary: hash-chained JSON lines, durable before the act they permit.

A torn last line (a crash while writing) is mended and recorded; any other break is
refused. Who holds the signing key can rewrite everything: only heads that others keep
show that (TRUST.md section 9).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.disk import Disk, Lock
from fedsecure.envelope import canonical
from fedsecure.errors import (
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
_FIELDS = frozenset(
    (
        "v ledger seq prev time term action object outcome code run round detail hash sig"
    ).split()
)


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
    """A ledger open for writing; one process at a time. Made by `open`."""

    def __init__(  # noqa: PLR0913 - made by `open` only
        self,
        path: Path,
        name: str,
        key: SigningKey,
        disk: Disk,
        clock: Clock,
        lock: Lock,
        records: list[Record],
    ) -> None:
        """Use `open`."""
        self._path = path
        self._name = name
        self._key = key
        self._disk = disk
        self._clock = clock
        self._lock = lock
        self._records = records
        self._failed = False

    @classmethod
    def open(
        cls, path: Path, name: str, key: SigningKey, disk: Disk, clock: Clock
    ) -> "Ledger":
        """Open a ledger, making it if missing, after verifying all of it.

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
            data = _read(path, disk)
            whole = data.rfind(b"\n") + 1
            records = _verified(data[:whole], name, key.public)
            ledger = cls(path, name, key, disk, clock, lock, records)
            ledger._mend(whole, len(data))
        except BaseException:
            lock.release()
            raise
        return ledger

    def append(  # noqa: PLR0913 - the fields of a line
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
        """
        last = self._records[-1] if self._records else None
        fields: dict[str, JSON] = {
            "v": FORMAT,
            "ledger": self._name,
            "seq": 1 if last is None else last.seq + 1,
            "prev": _NO_HASH if last is None else last.hash,
            "time": self._clock.wall().isoformat(timespec="milliseconds"),
            "term": term,
            "action": action,
            "object": what,
            "outcome": outcome,
            "code": code,
            "run": run,
            "round": round,
            "detail": dict(detail or {}),
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

    def records(self) -> tuple[Record, ...]:
        """Return all lines, oldest first."""
        return tuple(self._records)

    @property
    def head(self) -> LedgerHead:
        """Length and last hash."""
        last = self._records[-1]
        return LedgerHead(self._name, last.seq, last.hash)

    def close(self) -> None:
        """Let another process open it."""
        self._lock.release()

    def _write(self, line: bytes) -> None:
        # After a failed write the file may end in half a line; only `open` mends that.
        if self._failed:
            raise StorageError(f"{self._path}: an earlier write failed; restart")
        self._failed = True
        self._disk.append(self._path, line)
        self._failed = False

    def _mend(self, whole: int, size: int) -> None:
        if size > whole:
            self._disk.truncate(self._path, whole)
        if not self._records:
            owner: dict[str, JSON] = {"key": self._key.public.raw.hex()}
            self.append(OPENED, self._name, detail=owner)
        if size > whole:
            self.append(MENDED, self._name, detail={"torn_bytes": size - whole})


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
    whole = data.rfind(b"\n") + 1
    records = _verified(data[:whole], None, key)
    if not records:
        raise LedgerCorrupt(f"{path}: no line at all")
    if whole < len(data):
        raise LedgerCorrupt(f"{path}: line {len(records) + 1} is torn")
    return tuple(records)


def _read(path: Path, disk: Disk) -> bytes:
    try:
        return disk.read(path, MAX_LEDGER_BYTES)
    except NotFound:
        return b""


def _verified(data: bytes, name: str | None, key: VerifyKey | None) -> list[Record]:
    records: list[Record] = []
    prev = _NO_HASH
    for number, line in enumerate(data.splitlines(), start=1):
        fields = _parse(line, number)
        if number == 1:
            name, key = _owner(fields, name, key)
        if fields["ledger"] != name:
            raise LedgerCorrupt(f"line {number}: of another ledger")
        if fields["seq"] != number:
            raise LedgerCorrupt(
                f"line {number}: says it is number {fields['seq']}: lines were removed, "
                "added or reordered"
            )
        if fields["prev"] != prev:
            raise LedgerCorrupt(f"line {number}: does not follow the line before")
        _check_line(fields, number, key)
        record = _record(fields)
        records.append(record)
        prev = record.hash
    return records


def _parse(line: bytes, number: int) -> dict[str, JSON]:
    if len(line) >= MAX_LINE_BYTES:
        raise LedgerCorrupt(f"line {number}: longer than {MAX_LINE_BYTES} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as bad:
        raise LedgerCorrupt(f"line {number}: not JSON") from bad
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise LedgerCorrupt(f"line {number}: not the fields of a ledger line")
    if fields["v"] != FORMAT:
        raise LedgerCorrupt(f"line {number}: format {fields['v']!r}, read is {FORMAT}")
    if canonical(fields) != line:
        raise LedgerCorrupt(f"line {number}: edited (not in canonical form)")
    return fields


def _owner(
    fields: Mapping[str, JSON], name: str | None, key: VerifyKey | None
) -> tuple[str, VerifyKey]:
    detail = fields["detail"]
    stated = detail.get("key") if isinstance(detail, dict) else None
    if fields["action"] != OPENED or not isinstance(stated, str):
        raise LedgerCorrupt("line 1: does not open the ledger")
    if key is None:
        key = VerifyKey(bytes.fromhex(stated))
    if stated != key.raw.hex():
        raise LedgerCorrupt("line 1: this ledger belongs to another key")
    return str(fields["ledger"]) if name is None else name, key


def _check_line(fields: Mapping[str, JSON], number: int, key: VerifyKey | None) -> None:
    bare = {k: v for k, v in fields.items() if k not in {"hash", "sig"}}
    digest = _hash(bare)
    if fields["hash"] != digest.hex():
        raise LedgerCorrupt(f"line {number}: edited (its hash does not match)")
    try:
        signature = bytes.fromhex(str(fields["sig"]))
        if key is not None:
            key.verify(signature, digest)
    except (ValueError, VerificationError) as bad:
        raise LedgerCorrupt(f"line {number}: not signed by the ledger's owner") from bad


def _hash(fields: Mapping[str, JSON]) -> bytes:
    return hashlib.sha256(_LABEL + canonical(fields)).digest()


def _record(fields: Mapping[str, JSON]) -> Record:
    detail = fields["detail"]
    return Record(
        seq=int(str(fields["seq"])),
        prev=str(fields["prev"]),
        time=str(fields["time"]),
        term=int(str(fields["term"])),
        action=str(fields["action"]),
        object=str(fields["object"]),
        outcome=str(fields["outcome"]),
        code=str(fields["code"]),
        run=str(fields["run"]),
        round=int(str(fields["round"])),
        detail=detail if isinstance(detail, dict) else {},
        hash=str(fields["hash"]),
        sig=str(fields["sig"]),
    )
